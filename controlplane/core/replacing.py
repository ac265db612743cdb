"""Which tasks are replaced next, and which revision each place gets: what a rollout leads to in the slots of a service.

Two rules. No more is under way at a time than the policy allows, and what is under way and does not work counts: a new
revision that never becomes ready stops its own rollout, unless it is to go on without what has failed. And no slot ever
has more than two tasks that have not ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.core import places, plan, rollout, slots, tasks, update_policy
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A rollout, made ready to be asked what to do about the slots of its service."""

    status: pb.RolloutStatus
    policy: update_policy.Policy
    control: pb.RolloutControl
    goal: pb.Revision
    stable: pb.Revision | None
    """What places have while nothing may be replaced."""
    members: Sequence[slots.Slot]
    leaving: frozenset[str]
    """Ids of tasks that leave their nodes anyway, or get another beside them for that."""
    moving: frozenset[str]
    """Ids of tasks that go as soon as another of their revision works in their slot."""
    given_up: frozenset[places.Key]
    """Where the new revision has failed and does not work, while the rollout goes on without it."""
    vain: frozenset[str]
    """Ids of the tasks there that are not waited for any more: where an old one works, they go."""
    now_ms: int

    @property
    def stands_still(self) -> bool:
        """Nothing is replaced now."""
        return self.control.paused or self.status.state in {rollout.PAUSED, rollout.WAITING}

    def most_new(self) -> int:
        """How many slots may have the new revision: all, or the canary."""
        unpromoted = self.status.state == rollout.ROLLING and self.control.promoted_revision_id != self.goal.meta.id
        if unpromoted and self.policy.canary and self.stable is not None and self.stable.meta.id != self.goal.meta.id:
            return self.policy.canary
        return len(self.members)

    def revisions_of_free(self) -> dict[places.Key, pb.Revision]:
        """The revision that each slot without a live task is to get.

        What has the new one keeps it, whatever the rollout does: a task that fails is tried again. The others get it
        while replacing goes on, and else go back to the last good one.
        """
        tried = sum(slots.has_new(slot) or self._is_left_behind(slot) for slot in self.members)
        left = 0 if self.stands_still else self.most_new() - tried
        chosen: dict[places.Key, pb.Revision] = {}
        for slot in self.members:
            if slot.live:
                continue
            if slots.has_new(slot):
                chosen[slot.place.key] = self.goal
            elif left > 0 or self.stable is None:
                left -= 1
                chosen[slot.place.key] = self.goal
            else:
                chosen[slot.place.key] = self.stable
        return chosen

    def doubles(self) -> list[tuple[pb.Task, str]]:
        """Live tasks beside a better one in their slot, but for old ones that still do the work of a new one."""
        found = []
        let_go = self._let_go()
        for slot in self.members:
            news = [task for task in slot.live if task.revision_id == slot.goal_id]
            kept, pair = () if slot.place.key in let_go else self._kept(slot), self._pair(news)
            found += [(task, "the slot has a better task") for task in news if task not in pair]
            if kept:
                found += [(task, "the old one works, and it does not") for task in pair if task.meta.id in self.vain]
            found += [(task, self.why_replaced()) for task in slot.old if task not in kept]
        return found

    def _pair(self, equals: Sequence[pb.Task]) -> Sequence[pb.Task]:
        """The best of one revision; while it is moved, also the one that comes for it."""
        staying = [task for task in equals if task.meta.id not in self.moving]
        going = [task for task in equals if task.meta.id in self.moving]
        if not staying or not going:
            return equals[:1]
        waits = tasks.is_ready(going[0]) and not tasks.is_ready(staying[0])
        return [going[0], staying[0]] if waits else staying[:1]

    def _kept(self, slot: slots.Slot) -> Sequence[pb.Task]:
        """The old task that stays for now; two while it is moved."""
        first = slot.old[:1]
        if slot.place.held:
            return slot.old[:1]
        if slots.is_done(slot, self.goal):
            return ()
        if slot.new is None:
            return self._pair(slot.old)
        works = bool(first) and tasks.is_ready(first[0])
        if slot.new_works:
            return first if works and self._waits_for_all() else ()
        return first if works else ()

    def _let_go(self) -> frozenset[places.Key]:
        """Where an old task that works stops before the new one beside it does: as many as may be missing.

        Pairs are of a policy that let new tasks come first. One that does not, and that a person has written meanwhile,
        may be just what the new tasks wait for: that the old ones give up a port of the node.
        """
        if self.policy.surge or self.stands_still:
            return frozenset()
        pairs = [slot for slot in self.members if slot.new is not None and not slot.new_works and self._kept(slot)]
        staying = [slot for slot in pairs if slot.old[0].meta.id not in self.moving and not slot.place.held]
        return frozenset(slot.place.key for slot in staying[: max(self._spare(), 0)])

    def _spare(self) -> int:
        """How many more of those that work may stop."""
        working = sum(slot.task is not None and self._goes_on_working(slot.task) for slot in self.members)
        return working - (len(self.members) - self.policy.missing - self._lost())

    def _waits_for_all(self) -> bool:
        if not self.policy.together or self.status.state not in rollout.UNDECIDED:
            return False
        return any(not slots.is_good(slot, self.goal) and not self._is_given_up(slot) for slot in self.members)

    def _is_given_up(self, slot: slots.Slot) -> bool:
        return slot.place.key in self.given_up

    def _is_left_behind(self, slot: slots.Slot) -> bool:
        """It has its old task for now: until the end it is not tried again."""
        return self._is_given_up(slot) and not slots.has_new(slot) and self.status.state != rollout.FAILED

    def replaced(self) -> tuple[list[pb.Task], list[slots.Slot], int | None]:
        """Old tasks that stop now, slots that get a new task beside the old one, and when to look again.

        Example: 10 tasks, surge 3, missing 2: at first three slots get a second task and two old tasks stop. As long as
        these five do not work, nothing else is touched.
        """
        if self.stands_still:
            return [], [], None
        quota = self._quota()
        plain = list(filter(self._is_to_change, self.members))
        idle = [slot for slot in plain if not tasks.is_ready(slot.old[0])][: max(quota, 0)]
        if idle:
            return [slot.old[0] for slot in idle], [], None
        rests_until = self._rests_until()
        if self.now_ms < rests_until:
            return [], [], rests_until
        working = [slot for slot in plain if tasks.is_ready(slot.old[0])]
        return self._take(sorted(working, key=self._turn), quota)

    def _rests_until(self) -> int:
        """The delay after a task was replaced. Going back knows none."""
        done = self.status.replaced or self.given_up
        rests = self.status.state == rollout.ROLLING and self.policy.delay_ms and done
        return self.status.progressed_at + self.policy.delay_ms if rests else 0

    def _quota(self) -> int:
        """How many more slots may get the new revision. A free one that is to get it counts, however long it waits."""
        promised = sum(one.meta.id == self.goal.meta.id for one in self.revisions_of_free().values())
        tried = sum(slot.new is not None or self._is_left_behind(slot) for slot in self.members)
        return self.most_new() - promised - tried

    def _is_to_change(self, slot: slots.Slot) -> bool:
        """It has an old task only, which does not leave anyway."""
        if slot.new is not None or len(slot.old) != 1 or slot.place.held or slots.is_done(slot, self.goal):
            return False
        return slot.old[0].meta.id not in self.leaving

    def _take(self, working: Sequence[slots.Slot], quota: int) -> tuple[list[pb.Task], list[slots.Slot], int | None]:
        room = min(self.policy.surge + self.policy.missing - sum(map(self._is_under_way, self.members)), quota)
        able = [slot for slot in working if len(slot.live) == 1 and not slot.stopping]
        moments = {slot.place.key: slots.ready_at(slot, self.goal.meta.id) for slot in able}
        due = [slot for slot in able if moments[slot.place.key] <= self.now_ms]
        # A pair on a node that is paused or out of reach stays as it is, and nobody waits for it.
        pairs = sum(bool(slot.new and slot.old) and not slot.place.held for slot in self.members)
        beside = self.policy.surge - pairs
        begun = due[: max(min(room, beside), 0)]
        spare = self._spare() - len(self._let_go())
        taken = {slot.place.key for slot in begun} | (self.given_up if self.policy.surge else frozenset())
        others = [slot for slot in working if slot.place.key not in taken]
        ended = others[: max(min(room - len(begun), spare), 0)]
        later = [moment for moment in moments.values() if moment > self.now_ms]
        return [slot.old[0] for slot in ended], begun, plan.earliest(later)

    def _lost(self) -> int:
        """Slots in which nothing works, and for which nothing waits."""
        lost = [slot for slot in self.members if self._is_given_up(slot)]
        return sum(slot.task is None or not tasks.is_ready(slot.task) for slot in lost)

    def _goes_on_working(self, task: pb.Task) -> bool:
        return tasks.is_ready(task) and task.meta.id not in self.leaving

    def _turn(self, slot: slots.Slot) -> tuple[bool, int, places.Place]:
        """What no rollout was completed to goes first, then what was not tried in this one, or longest ago."""
        stable = self.stable is not None and slot.old[0].revision_id == self.stable.meta.id
        made = (task.meta.created_at for task in slot.ended if task.revision_id == self.goal.meta.id)
        return stable, max((at for at in made if at >= self.status.began_at), default=0), slot.place

    def _is_under_way(self, slot: slots.Slot) -> bool:
        """It is to have a new task, and has none that works."""
        if slots.is_good(slot, self.goal) or self._is_given_up(slot):
            return False
        return slot.new is not None or not slot.live

    def why_replaced(self) -> str:
        """For the log, and the plan."""
        return f"replaced by revision {self.goal.number}"

    def is_worth_telling(self) -> bool:
        """A service that stands as it was asked for, or starts for the first time, needs no word about its rollout."""
        if self.status.state == rollout.ROLLING:
            return any(slot.old for slot in self.members)
        return self.status.state != rollout.COMPLETED

"""What one slot of a service needs next: a place, filled by one task after another.

While a rollout goes on that starts first, there may be two in it: the new one, and the old one until that is ready.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.core import places, tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb

HEALTHY_MS = 60_000
"""A task that ran this long had no trouble starting; its failure begins a new row."""

FIRST_DELAY_MS = 1_000
LONGEST_DELAY_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The tasks of one slot, told apart."""

    place: places.Place
    goal_id: str
    """The revision that it is to have."""
    live: tuple[pb.Task, ...]
    """Best first: those of the goal before others, then those that are ready."""
    stopping: tuple[pb.Task, ...]
    ended: tuple[pb.Task, ...]
    """Newest first."""

    task: pb.Task | None
    """The task that fills the slot: one that works, else the best live one."""
    new: pb.Task | None
    """The best live task of the goal."""
    new_works: bool
    """It is there, and does its work."""
    old: tuple[pb.Task, ...]
    """The live tasks of other revisions, best first."""

    @property
    def last(self) -> pb.Task | None:
        """The task that ended last."""
        return self.ended[0] if self.ended else None

    @property
    def members(self) -> Iterator[pb.Task]:
        """All of its tasks."""
        return itertools.chain(self.live, self.stopping, self.ended)


def sort_out(place: places.Place, members: Sequence[pb.Task], revision_id: str) -> Slot:
    """Tells the tasks of a slot apart. Best is: of the wanted revision, ready, far along, and last the smaller id.

    A planner asks hundreds of slots the same questions many times over, so the answers are worked out here, once.
    """

    def goodness(task: pb.Task) -> tuple[bool, bool, int, str]:
        return (task.revision_id != revision_id, not tasks.is_ready(task), -task.status.state, task.meta.id)

    def age(task: pb.Task) -> tuple[int, str]:
        return (-task.meta.created_at, task.meta.id)

    live = tuple(sorted(filter(tasks.is_live, members), key=goodness))
    old = tuple(task for task in live if task.revision_id != revision_id)
    new = live[0] if len(old) < len(live) else None
    return Slot(
        place=place,
        goal_id=revision_id,
        live=live,
        stopping=tuple(filter(tasks.holds_its_slot, members)),
        ended=tuple(sorted((task for task in members if states.is_terminal(task.status.state)), key=age)),
        task=next(filter(tasks.is_ready, live), live[0] if live else None),
        new=new,
        new_works=new is not None and tasks.is_ready(new),
        old=old,
    )


def is_done(slot: Slot, revision: pb.Revision) -> bool:
    """The slot's last task was of this revision and ended in a way after which the restart policy wants no other."""
    last = slot.ended[0] if slot.ended else None
    if last is None or slot.stopping or last.revision_id != revision.meta.id:
        return False
    if any(task.revision_id == revision.meta.id or task.meta.created_at > last.meta.created_at for task in slot.live):
        return False
    match revision.template.restart.condition:
        case pb.RESTART_CONDITION_NEVER:
            return last.status.state in {states.COMPLETE, states.FAILED}
        case pb.RESTART_CONDITION_ON_FAILURE:
            return tasks.ended_well(last)
        case _:
            return False


def is_good(slot: Slot, revision: pb.Revision) -> bool:
    """There is nothing more to do for this place."""
    return slot.place.held or slot.new_works or is_done(slot, revision)


def came_to_nothing(slot: Slot, task: pb.Task) -> bool:
    """It failed; or it was made of the goal and stopped, and the old one beside which it was made is still there."""
    if tasks.failed(task) or tasks.is_live(task) or task.revision_id != slot.goal_id or slot.new is not None:
        return tasks.failed(task)
    outlived = any(old.meta.created_at <= task.meta.created_at for old in slot.old)
    return outlived and task.status.state not in {states.COMPLETE, states.ORPHANED}


def failures_before(slot: Slot, revision_id: str) -> int:
    """How many tasks of this revision have failed in this slot, one after another, up to now.

    Example: a task with `failures: 2` fails after 3 s → 3. One with `failures: 2` fails after two minutes → 1.
    """
    last = slot.ended[0] if slot.ended else None
    if last is None or last.revision_id != revision_id or not came_to_nothing(slot, last):
        return 0
    ran_ms = last.status.finished_at - last.status.started_at if last.status.started_at else 0
    return 1 if ran_ms >= HEALTHY_MS else last.failures + 1


def ready_at(slot: Slot, revision_id: str) -> int:
    """When the slot may get its next task: at once, then 1 s × 2ⁿ after the last failure, up to a minute.

    Example: the third failure in a row at t → not before t + 2 s (0, 1, 2, 4, … seconds). The agent says when that was;
    its clock may be behind, but no task failed before it was made.
    """
    failures = failures_before(slot, revision_id)
    if failures <= 1:
        return 0
    delay_ms = min(FIRST_DELAY_MS << min(failures - 2, 10), LONGEST_DELAY_MS)
    last = slot.ended[0]
    return max(last.status.at, last.meta.created_at) + delay_ms


def next_moment(slot: Slot, now_ms: int) -> int:
    """When the slot's next task counts as made: now, or just after the last one when the clock has gone back since.

    Which task is the newest of its slot must not depend on the clocks of two leaders: else the old one would count as
    the last, the new one's failure for nothing, and the slot would be filled again and again without a pause.
    """
    return max([now_ms, *(task.meta.created_at + 1 for task in slot.ended)])


def has_new(slot: Slot) -> bool:
    """Its task, or the last one that it had, is of the new revision."""
    if slot.new is not None:
        return True
    return not slot.live and slot.last is not None and slot.last.revision_id == slot.goal_id


def lacks_new(slot: Slot) -> bool:
    """A task of another revision is there, or was the last one, or there was none."""
    return bool(slot.old) or not has_new(slot)

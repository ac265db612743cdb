"""What has failed in a rollout, and what a rollout goes on without that no failure stops (`onFailure: continue`).

There, a slot counts as failed when a task of the revision has failed in it, or is not ready `progressDeadline` after it
was made. The rollout goes on without it: the old task of the slot stays while it works, the new one stops, and the slot
takes no part in what may be missing. Stopping the old one would leave nothing there; keeping both would be more tasks
than people allow, once several slots have failed. When every slot works or has failed, those that have failed are tried
further, as many at a time as the policy allows.

The rule: all of this is read off the tasks, so that a new leader leaves the same slots behind.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from controlplane.core import places, plan, slots, tasks, update_policy
from protos import states, units
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A rollout, to be asked about its failures."""

    status: pb.RolloutStatus
    policy: update_policy.Policy
    goal: pb.Revision
    now_ms: int

    def last_of(self, slot: slots.Slot) -> pb.Task | None:
        """Of the tasks that the slot got of the revision in this rollout, the last that failed."""
        tried = [task for task in slot.members if self._counts(task)]
        return tasks.newest(task for task in tried if self.came_to_nothing(slot, task))

    def came_to_nothing(self, slot: slots.Slot, task: pb.Task) -> bool:
        """A task of the slot has failed. A rollout that goes on waits for none beyond the deadline, and for none that
        has ended: nothing else would end its wait for one that crashes late again and again.
        """
        if _has_failed(task, self.policy):
            return True
        return self.policy.goes_on and (self._is_overdue(task) or slots.came_to_nothing(slot, task))

    def given_up(self, members: Sequence[slots.Slot]) -> frozenset[places.Key]:
        """Where the revision has failed and does not work, while the rollout goes on without it."""
        if not self.policy.goes_on:
            return frozenset()
        idle = [slot for slot in members if not slots.is_good(slot, self.goal)]
        return frozenset(slot.place.key for slot in idle if self.last_of(slot) is not None)

    def in_vain(self, members: Iterable[slots.Slot]) -> frozenset[str]:
        """Ids of the live tasks of the revision that came to nothing."""
        news = ((slot, slot.new) for slot in members if slot.new is not None)
        return frozenset(task.meta.id for slot, task in news if self.came_to_nothing(slot, task))

    def overdue_at(self, members: Sequence[slots.Slot]) -> int | None:
        """When the next of those that are not ready yet is overdue."""
        return plan.earliest([at for at in self._deadlines(members) if at > self.now_ms])

    def words(self, failed: Sequence[pb.Task]) -> str:
        """What happened to the last of them; empty when none has failed."""
        last = tasks.newest(failed)
        if last is None:
            return ""
        said = _what_happened(last.status)
        if self._is_overdue(last):
            late = f"not ready after {units.format_duration(self.policy.deadline_ms)}"
            said = f"{late}: {last.status.message}" if last.status.message else late
        return f"{last.meta.name}: {said}"

    def _counts(self, task: pb.Task) -> bool:
        return task.revision_id == self.status.revision_id and task.meta.created_at >= self.status.counted_from

    def _is_overdue(self, task: pb.Task) -> bool:
        waits = self.policy.goes_on and tasks.is_live(task) and not tasks.is_ready(task)
        return waits and self.now_ms >= self._deadline(task)

    def _deadline(self, task: pb.Task) -> int:
        return task.meta.created_at + self.policy.deadline_ms

    def _deadlines(self, members: Sequence[slots.Slot]) -> Iterator[int]:
        for slot in members:
            if slot.new is not None and not slot.new_works:
                yield self._deadline(slot.new)


def _has_failed(task: pb.Task, policy: update_policy.Policy) -> bool:
    """It could not be prepared, or did not stand `monitor` after its start."""
    status = task.status
    if status.state == states.REJECTED or (status.state == states.FAILED and not status.started_at):
        return True
    if status.restarts:
        return status.first_run <= policy.monitor_ms
    return status.state == states.FAILED and status.finished_at - status.started_at <= policy.monitor_ms


def _what_happened(status: pb.TaskStatus) -> str:
    """In words; a container that was restarted may run again, and have nothing to say."""
    if status.message:
        return status.message
    if status.HasField("exit_code"):
        return f"ended with exit code {status.exit_code}"
    return "was restarted" if status.restarts else "did not become ready"

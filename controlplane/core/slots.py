"""What one slot of a replicated service needs next: the place of one replica, filled by one task after another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controlplane.core import tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb

HEALTHY_MS = 60_000
"""A task that ran this long had no trouble starting; its failure begins a new row."""

FIRST_DELAY_MS = 1_000
LONGEST_DELAY_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The tasks of one slot, told apart."""

    number: int
    live: tuple[pb.Task, ...]
    """Best first. More than one only for a moment: the others are stopped."""
    stopping: tuple[pb.Task, ...]
    ended: tuple[pb.Task, ...]
    """Newest first."""

    @property
    def task(self) -> pb.Task | None:
        """The task that fills the slot."""
        return self.live[0] if self.live else None


def by_number(members: Iterable[pb.Task]) -> dict[int, list[pb.Task]]:
    """The tasks of a service by the slot that they fill or filled."""
    slots: dict[int, list[pb.Task]] = {}
    for task in members:
        slots.setdefault(task.slot, []).append(task)
    return slots


def sort_out(number: int, members: Sequence[pb.Task], revision_id: str) -> Slot:
    """Tells the tasks of a slot apart. Best is: of the wanted revision, ready, far along, and last the smaller id."""

    def goodness(task: pb.Task) -> tuple[bool, bool, int, str]:
        return (task.revision_id != revision_id, not tasks.is_ready(task), -task.status.state, task.meta.id)

    def age(task: pb.Task) -> tuple[int, str]:
        return (-task.meta.created_at, task.meta.id)

    return Slot(
        number=number,
        live=tuple(sorted(filter(tasks.is_live, members), key=goodness)),
        stopping=tuple(filter(tasks.holds_its_slot, members)),
        ended=tuple(sorted((task for task in members if states.is_terminal(task.status.state)), key=age)),
    )


def is_done(slot: Slot, revision: pb.Revision) -> bool:
    """The slot's last task ended in a way after which the restart policy wants no other."""
    last = slot.ended[0] if slot.ended else None
    if last is None or slot.live or slot.stopping or last.revision_id != revision.meta.id:
        return False
    match revision.template.restart.condition:
        case pb.RESTART_CONDITION_NEVER:
            return last.status.state in {states.COMPLETE, states.FAILED}
        case pb.RESTART_CONDITION_ON_FAILURE:
            return tasks.ended_well(last)
        case _:
            return False


def failures_before(slot: Slot, revision_id: str) -> int:
    """How many tasks of this revision have failed in this slot, one after another, up to now.

    Example: a task with `failures: 2` fails after 3 s → 3. One with `failures: 2` fails after two minutes → 1.
    """
    last = slot.ended[0] if slot.ended else None
    if last is None or not tasks.failed(last) or last.revision_id != revision_id:
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

"""Keeps a replicated service whole: one good task in each of its slots, of the revision that its spec asks for.

The naive design reacts to events: a task failed, start another. It fails when an event is missed or two overlap. This
one looks at all tasks of the service and says what is missing; asked twice, it says the same.

A slot is free when its last task has ended. A task that was told to stop holds its slot until then, so that a
replacement finds the port and the memory that it needs. Replacing for a new revision goes one slot at a time, and
stops going as soon as something that should be ready is not.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from controlplane.core import plan, revisions, slots, tasks
from controlplane.core import service_status as status_of
from protos import states
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that is known of one service."""

    service: pb.Service
    revisions: Collection[pb.Revision]
    tasks: Collection[pb.Task]
    draining: frozenset[str]
    """Ids of the nodes whose tasks have to leave."""
    now_ms: int
    refuge: bool = False
    """Whether there is a node that takes the tasks that have to leave."""
    address: str = ""
    """A virtual address for it, when it is to get one."""
    waits_for: str = ""
    """What its new tasks are held for, when it depends on other services."""
    needed: bool = False
    """Whether services that are being deleted depend on it: it goes only after them."""
    trouble: str = ""
    """What the network does not give it, for its status."""


def reconcile(situation: Situation, suffixes: Iterator[str]) -> plan.Plan:
    """What to change so that the service comes nearer to its spec. `suffixes`: random parts for names of new tasks."""
    if situation.service.meta.deleted_at and not situation.needed:
        return _delete(situation)
    now_ms = situation.now_ms
    revision, is_new = revisions.current(situation.service, situation.revisions, now_ms)
    by_slot = slots.by_number(situation.tasks)
    wanted = [
        slots.sort_out(number, by_slot.pop(number, ()), revision.meta.id)
        for number in range(1, situation.service.spec.replicas + 1)
    ]
    surplus = [task for members in by_slot.values() for task in members]
    changes: list[plan.Change | None] = [plan.Write(value=revision, why="the template changed")] if is_new else []
    changes += [tasks.stop(task, pb.DESIRED_STATE_REMOVE, "more replicas than wanted", now_ms) for task in surplus]
    leaving = _leaving(wanted, situation)
    changes += [change for slot in wanted for change in _clean(slot, leaving, now_ms)]
    filling, wake_at = _fill(wanted, revision, situation, suffixes)
    changes += filling
    changes.append(_replace_one(wanted, revision, situation))
    changes.append(_status(situation, wanted, revision))
    made = tuple(change for change in changes if change is not None)
    return plan.Plan(changes=made, wake_at=wake_at)


def _leaving(wanted: list[slots.Slot], situation: Situation) -> frozenset[str]:
    """The tasks that leave the nodes that are drained now.

    A service of several replicas keeps the last one that does its work until another does, when there is a node for it.
    Example: of two replicas both are on n1. n1 is drained → slot 1 leaves; when it works on n2, slot 2 leaves.
    """
    alive = [slot.task for slot in wanted if slot.task is not None]
    leaving = [task for task in alive if task.node_id in situation.draining]
    working = [task for task in alive if tasks.is_ready(task)]
    others_work = any(task.node_id not in situation.draining for task in working)
    if working and not others_work and situation.refuge and len(wanted) > 1:
        leaving.remove(working[-1])
    return frozenset(task.meta.id for task in leaving)


def _clean(slot: slots.Slot, leaving: frozenset[str], now_ms: int) -> Iterator[plan.Change | None]:
    """Doubles stop, tasks of a node that is drained leave, and what was lost is not wanted back."""
    for double in slot.live[1:]:
        yield tasks.stop(double, pb.DESIRED_STATE_SHUTDOWN, "the slot has a better task", now_ms)
    if slot.task is not None and slot.task.meta.id in leaving:
        yield tasks.stop(slot.task, pb.DESIRED_STATE_SHUTDOWN, "its node is drained", now_ms)
    for ended in slot.ended:
        if ended.status.state == states.ORPHANED:
            yield tasks.stop(ended, pb.DESIRED_STATE_SHUTDOWN, "its node was lost; it stops if it returns", now_ms)


def _fill(
    wanted: list[slots.Slot], revision: pb.Revision, situation: Situation, suffixes: Iterator[str]
) -> tuple[list[plan.Change], int | None]:
    """New tasks for the slots that are free, and when the next of those that have to wait may get one."""
    changes: list[plan.Change] = []
    waiting: list[int] = []
    for slot in wanted:
        if slot.live or slot.stopping or slots.is_done(slot, revision):
            continue
        ready_at = slots.ready_at(slot, revision.meta.id)
        if ready_at > situation.now_ms:
            waiting.append(ready_at)
            continue
        task = tasks.make(
            service=situation.service,
            revision=revision,
            slot=slot.number,
            failures=slots.failures_before(slot, revision.meta.id),
            suffix=next(suffixes),
            waits_for=situation.waits_for,
            now_ms=slots.next_moment(slot, situation.now_ms),
        )
        changes.append(plan.Write(value=task, why=f"slot {slot.number} is free"))
    return changes, plan.earliest(waiting)


def _replace_one(wanted: list[slots.Slot], revision: pb.Revision, situation: Situation) -> plan.Change | None:
    """Stops one task of an older revision, when everything that should be ready is.

    An old task that does no work is not worth waiting for: those go first, whatever the others do.
    """
    old = [slot.task for slot in wanted if slot.task is not None and slot.task.revision_id != revision.meta.id]
    if not old:
        return None
    idle = [task for task in old if not tasks.is_ready(task)]
    if not idle and any(slot.task is None and not slots.is_done(slot, revision) for slot in wanted):
        return None
    if not idle and not all(slot.task is None or tasks.is_ready(slot.task) for slot in wanted):
        return None
    chosen = (idle or old)[0]
    if chosen.node_id in situation.draining:
        return None  # it leaves already
    return tasks.stop(chosen, pb.DESIRED_STATE_SHUTDOWN, f"replaced by revision {revision.number}", situation.now_ms)


def _status(situation: Situation, wanted: list[slots.Slot], revision: pb.Revision) -> plan.Change | None:
    status = status_of.of(situation.service, wanted, revision, situation.tasks)
    status.address = situation.service.status.address or situation.address
    if situation.trouble:
        status.message += f"; {situation.trouble}"
    if status == situation.service.status:
        return None
    changed = plan.copy(situation.service)
    changed.status.CopyFrom(status)
    return plan.Write(value=changed, why=status.message)


def _delete(situation: Situation) -> plan.Plan:
    """Tasks first; when the last has gone, the revisions and the service itself."""
    now_ms = situation.now_ms
    stops = [tasks.stop(task, pb.DESIRED_STATE_REMOVE, "its service is deleted", now_ms) for task in situation.tasks]
    changes: list[plan.Change] = [stop for stop in stops if stop is not None]
    if not situation.tasks:
        changes += [plan.Remove(value=revision, why="its service is deleted") for revision in situation.revisions]
        changes.append(plan.Remove(value=situation.service, why="everything that it owned has gone"))
    return plan.Plan(changes=tuple(changes))

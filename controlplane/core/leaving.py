"""Which tasks of a service leave their nodes now: nodes that are drained, or have a taint that drives them out.

Two rules. Where the service lets two tasks stand in a slot, the task stays until another one works in its place; else
it stops first, and no more of them at a time than `disruption` allows. And a deadline is kept: from then on nothing is
waited for.

    web-1 on n1, n1 is drained ─► web-1' is made, and placed on n2 ─► web-1' is ready ─► web-1 is told to stop
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from controlplane.core import disruption, plan, slots, tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb

DRAINED = "its node is drained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """What is to be done about them."""

    stopped: Sequence[tuple[pb.Task, str]] = ()
    """Those that are told to stop now, and why."""
    begun: Sequence[tuple[slots.Slot, pb.Task]] = ()
    """Slots that get a second task now, and the one that is to leave."""
    moving: frozenset[str] = frozenset()
    """Ids of all live tasks that go as soon as another works in their slot."""
    wake_at: int | None = None

    @property
    def concerned(self) -> frozenset[str]:
        """Ids of the tasks that something is done about now."""
        stopped, begun = (task for task, _ in self.stopped), (task for _, task in self.begun)
        return frozenset(task.meta.id for task in (*stopped, *begun))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A service whose tasks may have to leave."""

    service: pb.Service
    members: Sequence[slots.Slot]
    tasks: Collection[pb.Task]
    draining: Collection[str]
    """Ids of the nodes that its tasks have to leave."""
    deadlines: Mapping[str, int]
    """When waiting ends, by the ids of those nodes that have such a time."""
    now_ms: int
    driven: Collection[tuple[str, str]] = ()
    """Revisions and nodes, by their ids, whose tasks have to leave them."""

    def leaves(self, task: pb.Task) -> bool:
        """Whether it is where it cannot stay."""
        return task.node_id in self.draining or (task.revision_id, task.node_id) in self.driven

    def is_overdue(self, task: pb.Task) -> bool:
        """Whether nothing is waited for any more."""
        return self.leaves(task) and self.deadlines.get(task.node_id, self.now_ms + 1) <= self.now_ms


def decide(case: Case) -> Leaving:
    """Asked again and again; what has been done before shows in the tasks."""
    places = [slot for slot in case.members if not slot.place.held]
    going = [(slot, task) for slot in places for task in slot.live if case.leaves(task)]
    reasons = [(slot, task, _at_once(slot, task, case)) for slot, task in going]
    staying = [(slot, task) for slot, task, why in reasons if not why]
    begun, waiting = _begin(staying, case)
    deadlines = [case.deadlines[task.node_id] for _, task in staying if task.node_id in case.deadlines]
    return Leaving(
        stopped=[*((task, why) for _, task, why in reasons if why), *_stop_first(going, staying, case)],
        begun=begun,
        moving=frozenset(task.meta.id for _, task in going) | _replaced(places),
        wake_at=plan.earliest([*deadlines, *waiting]),
    )


def _replaced(places: Sequence[slots.Slot]) -> frozenset[str]:
    """What others have been made for, unless no node takes those."""
    return frozenset(task.replaces for slot in places for task in slot.live if task.replaces and not _is_refused(task))


def _is_refused(task: pb.Task) -> bool:
    return task.status.state == states.PENDING


def _at_once(slot: slots.Slot, task: pb.Task, case: Case) -> str:
    """Why it need not wait for anything; empty when it has to."""
    if case.is_overdue(task):
        return f"{DRAINED}, and the deadline has passed"
    if not tasks.is_ready(task):
        return DRAINED
    for other in slot.live[: slot.live.index(task)]:
        if tasks.is_ready(other) and not case.is_overdue(other):
            return f"{DRAINED}, and {other.meta.name} works in its place"
    if any(tasks.is_ready(other) and not case.leaves(other) for other in slot.live):
        return f"{DRAINED}, and another one works in its place"
    last = slot.last
    if last is not None and last.status.state == states.COMPLETE and last.replaces == task.meta.id:
        return f"{DRAINED}, and {last.meta.name} has done its work"
    return ""


def starts_first(service: pb.Service) -> bool:
    """Whether two tasks may stand in a slot for a while. They are on two nodes, so that ports are no hindrance."""
    return service.spec.update.order != pb.UPDATE_ORDER_STOP_FIRST and not service.spec.on_node_loss.fence


def _begin(
    staying: Sequence[tuple[slots.Slot, pb.Task]], case: Case
) -> tuple[list[tuple[slots.Slot, pb.Task]], list[int]]:
    """Slots that get a second task now, and when others may get theirs after a failure."""
    begun, waiting = [], []
    for slot, task in staying if starts_first(case.service) else ():
        if len(slot.live) > 1 or slot.stopping:
            continue
        ready_at = slots.ready_at(slot, task.revision_id)
        if ready_at > case.now_ms:
            waiting.append(ready_at)
        else:
            begun.append((slot, task))
    return begun, waiting


def _stop_first(
    going: Sequence[tuple[slots.Slot, pb.Task]], staying: Sequence[tuple[slots.Slot, pb.Task]], case: Case
) -> list[tuple[pb.Task, str]]:
    """As many as may be missing, when no two may stand in a slot."""
    if starts_first(case.service) or not staying:
        return []
    forced = sum(tasks.is_ready(task) and case.is_overdue(task) for _, task in going)
    budget = max(0, disruption.allowed(case.service, case.tasks) - forced)
    return [(task, DRAINED) for _, task in staying[:budget]]

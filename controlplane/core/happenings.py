"""What of a change is worth telling, and in which words. Pure: the object before and after go in.

The rule: what is told is what a person would ask about afterwards: where a task went, why none took it, how it ended.
Each sentence holds as little as possible of what differs from time to time, so that equal things can be counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controlplane.core import preemption, rollout
from protos import absence, kinds, states
from protos.orch.v1 import objects_pb2 as pb

MAX_MESSAGE = 400
"""Characters of a sentence."""

RESTARTING = "Restarting"
"""The reason of a task whose container has ended: that is told once it is started again."""

HELD = "more than half of the nodes vanished together: none of its tasks is replaced until it returns"
"""What is told of a node that the brake holds, before the remedy."""

_NOBODY = pb.Task()
NodeName = Callable[[str], str]
"""What people call the node of an id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something that has happened, before it is counted and stored."""

    about: pb.EventObject
    reason: str
    message: str
    warning: bool = False
    at_ms: int = 0
    """When it was noticed."""


def about(value: kinds.StoredObject) -> pb.EventObject:
    """How events name an object."""
    kind = kinds.of(value)
    return pb.EventObject(
        kind=kind.name,
        namespace=value.meta.namespace if kind.namespaced else "",
        name=value.meta.name or value.meta.id,
        id=value.meta.id,
        service=value.service if isinstance(value, pb.Task) else "",
    )


def cut(message: str) -> str:
    """On one line, and no longer than is stored."""
    line = " ".join(message.split())
    return line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE - 1]}…"


def of_change(
    before: kinds.StoredObject | None, after: kinds.StoredObject | None, node_name: NodeName
) -> Iterator[Happening]:
    """What there is to tell of a change of one object."""
    match after or before:
        case pb.Task() as task if after is not None:
            yield from _of_task(before if isinstance(before, pb.Task) else _NOBODY, task, node_name)
        case pb.Service() as service:
            yield from _of_service(before if isinstance(before, pb.Service) else None, service, gone=after is None)
        case pb.Node() as node:
            yield from _of_node(before if isinstance(before, pb.Node) else None, node, gone=after is None)
        case _:
            pass


# Tasks ------------------------------------------------------------------------------------------------------------


def _of_task(before: pb.Task, after: pb.Task, node_name: NodeName) -> Iterator[Happening]:
    if after.replaces and not before.replaces:
        yield _normal(after, "Moving", f"takes the place of {after.replaces}: {after.moved_because}")
    if after.node_id and not before.node_id:
        yield _normal(after, "Placed", f"placed on node {node_name(after.node_id)}")
    if _filters(after) - _filters(before):
        yield _warning(after, "NotPlaced", f"no node takes it: {_refusals(after.status)}")
    if after.status.reason == preemption.REASON != before.status.reason:
        yield _warning(after, preemption.REASON, after.status.message)
    if before.status.state < states.RUNNING == after.status.state:
        yield _normal(after, "Started", f"started on node {node_name(after.node_id)}")
    if after.status.restarts > before.status.restarts:
        yield _warning(after, "Restarted", f"its container {_ended(after.status)}; it is started again in place")
    yield from _of_readiness(before, after)
    if before.status.state != after.status.state and states.is_terminal(after.status.state):
        yield from _of_end(after)


def _of_readiness(before: pb.Task, after: pb.Task) -> Iterator[Happening]:
    """While nothing else explains it: a container that has just died is not ready either."""
    runs = before.status.state == after.status.state == states.RUNNING
    wanted = after.desired_state == pb.DESIRED_STATE_RUNNING
    if not runs or not wanted or before.status.ready == after.status.ready:
        return
    if after.status.ready:
        yield _normal(after, "Ready", "it is ready")
    elif after.status.reason != RESTARTING and after.status.restarts == before.status.restarts and after.status.message:
        yield _warning(after, after.status.reason or "NotReady", after.status.message)


def _of_end(task: pb.Task) -> Iterator[Happening]:
    status = task.status
    match status.state:
        case states.COMPLETE:
            yield _normal(task, "Completed", "it has ended well")
        case states.SHUTDOWN:
            if task.node_id:
                yield _normal(task, "Stopped", "it was told to stop, and has stopped")
        case states.FAILED:
            yield _warning(task, status.reason or "Failed", _with_exit(status))
        case states.REJECTED:
            yield _warning(task, status.reason or "Rejected", status.message or "it could not be prepared")
        case states.ORPHANED:
            yield _warning(task, status.reason or "NodeLost", status.message or "its node was lost")
        case _:
            raise AssertionError(f"{states.word(status.state)} is no end")


def _filters(task: pb.Task) -> frozenset[str]:
    """The kinds of refusals: their figures change all the time."""
    pending = task.status.state == states.PENDING
    return frozenset(refusal.filter for refusal in task.status.refusals) if pending else frozenset()


def _refusals(status: pb.TaskStatus) -> str:
    return "; ".join(
        f"{refusal.nodes} {'node' if refusal.nodes == 1 else 'nodes'}: {refusal.detail or refusal.filter}"
        for refusal in status.refusals
    )


def _ended(status: pb.TaskStatus) -> str:
    if status.oom_killed:
        return "used more memory than its limit"
    return f"ended with exit code {status.exit_code}" if status.HasField("exit_code") else "ended"


def _with_exit(status: pb.TaskStatus) -> str:
    """The task's own message, with the exit code unless it says it already."""
    ended = f"its container {_ended(status)}"
    if not status.message:
        return ended
    said = not status.HasField("exit_code") or str(status.exit_code) in status.message
    return status.message if said else f"{status.message}; {ended}"


# Services and nodes -----------------------------------------------------------------------------------------------


def _of_service(before: pb.Service | None, after: pb.Service, *, gone: bool) -> Iterator[Happening]:
    if gone:
        yield _normal(after, "Gone", "it and its tasks are gone")
        return
    yield from _of_rollout(before.status.rollout if before is not None else pb.RolloutStatus(), after)
    if _is_settled(after) and not (before is not None and _is_settled(before)):
        yield _normal(after, "Settled", after.status.message or "everything is as asked")


def _of_rollout(before: pb.RolloutStatus, service: pb.Service) -> Iterator[Happening]:
    """What became of it by itself: what people ask of it is told with their request. A service that is new has nothing
    to replace; of it, that it is settled is enough.
    """
    after = service.status.rollout
    if (before.state, before.revision_id) == (after.state, after.revision_id):
        return
    match after.state:
        case rollout.PAUSED | rollout.FAILED if after.reason:
            yield _warning(service, "RolloutFailed", after.message)
        case rollout.WAITING:
            yield _normal(service, "CanaryWaits", f"{after.message}; see `orchctl rollout promote` and `abort`")
        case rollout.ROLLING_BACK:
            yield _warning(service, "RollingBack", after.message)
        case rollout.ROLLED_BACK:
            yield _warning(service, "RolledBack", after.message)
        case rollout.COMPLETED if before.stable_revision_id not in {"", after.revision_id}:
            yield _normal(service, "RolledOut", after.message)
        case _:
            pass


def _is_settled(service: pb.Service) -> bool:
    seen = service.status.observed_generation == service.meta.generation
    return service.status.settled and seen and not service.meta.deleted_at


def _of_node(before: pb.Node | None, after: pb.Node, *, gone: bool) -> Iterator[Happening]:
    if gone:
        yield _normal(after, "Removed", "its record was removed")
        return
    if before is None:
        yield _normal(after, "Joined", "it has joined the cluster")
        return
    if after.status.HasField("drain") and not after.status.drain.left and _was_full(before):
        yield _normal(after, "Emptied", "it is drained: it has no tasks any more")
    if after.status.held and not before.status.held:
        yield _warning(after, "Held", f"{HELD}, or `orchctl node lost {after.meta.name}` says that it does not")
    if before.status.state == after.status.state:
        return
    match after.status.state:
        case pb.NODE_STATE_READY:
            yield _normal(after, "Returned", "its agent holds a session again")
        case pb.NODE_STATE_DISCONNECTED if absence.is_expected(after):
            yield _normal(after, "Restarting", after.status.message)
        case pb.NODE_STATE_DISCONNECTED:
            yield _warning(after, "Disconnected", after.status.message)
        case pb.NODE_STATE_DOWN:
            yield _warning(after, "Down", after.status.message)
        case _:
            pass


def _was_full(node: pb.Node) -> bool:
    return not node.status.HasField("drain") or node.status.drain.left > 0


def _normal(value: kinds.StoredObject, reason: str, message: str) -> Happening:
    return Happening(about=about(value), reason=reason, message=cut(message))


def _warning(value: kinds.StoredObject, reason: str, message: str) -> Happening:
    return Happening(about=about(value), reason=reason, message=cut(message), warning=True)

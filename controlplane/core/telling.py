"""What a person has done to an object, as an event tells it: one word and one sentence.

The rule: values of variables and headers stay out of it, since they may be passwords.
"""

from controlplane.core import rebalance
from controlplane.core.apply import Result
from manifests import diff
from protos import kinds
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

MAX_CHANGES = 5
MAX_ACTOR = 100

_AVAILABILITY = {
    pb.AVAILABILITY_ACTIVE: ("Activated", "it takes tasks"),
    pb.AVAILABILITY_PAUSE: ("Paused", "it keeps its tasks and gets no new ones"),
    pb.AVAILABILITY_DRAIN: ("Drained", "its tasks are replaced on other nodes"),
}

_ROLLOUT_REASONS = {
    api.ROLLOUT_ACTION_PAUSE: "RolloutPaused",
    api.ROLLOUT_ACTION_RESUME: "RolloutResumed",
    api.ROLLOUT_ACTION_PROMOTE: "RolloutPromoted",
    api.ROLLOUT_ACTION_ABORT: "RolloutAborted",
    api.ROLLOUT_ACTION_UNDO: "RolloutUndone",
    api.ROLLOUT_ACTION_RESTART: "Restarted",
    api.ROLLOUT_ACTION_STOP: "Stopped",
    api.ROLLOUT_ACTION_START: "Started",
}


def actor(said: str) -> str:
    """Who a client says that it is: one short printable word."""
    return "".join(sign for sign in said if sign.isprintable() and not sign.isspace())[:MAX_ACTOR]


def of_apply(result: Result) -> tuple[str, str]:
    """Reason and message."""
    match result.action:
        case api.APPLY_ACTION_CREATED:
            return "Created", "made by an apply"
        case api.APPLY_ACTION_PRUNED:
            return "Pruned", f"it is not in the files of stack {result.after.meta.stack} any more"
        case _:
            assert result.before is not None, "what is changed was there before"
            return "Changed", _changes(result.before, result.after)


def of_rollout(action: api.RolloutAction.ValueType, said: str) -> tuple[str, str]:
    """Such as `RolloutPaused`; `said` is what was answered."""
    return _ROLLOUT_REASONS.get(action, "RolloutChanged"), said


def of_scale(before: pb.Service, after: pb.Service) -> tuple[str, str]:
    return "Scaled", f"{before.spec.replicas} → {after.spec.replicas} replicas"


def of_rebalance(_before: kinds.StoredObject, _after: kinds.StoredObject) -> tuple[str, str]:
    return "Rebalanced", "its tasks are to be spread over the nodes now"


def of_move(move: rebalance.Move) -> api.TaskMove:
    """As it is answered."""
    return api.TaskMove(
        namespace=move.service.meta.namespace,
        service=move.service.meta.name,
        task=move.task.meta.name,
        source=move.source.meta.name,
        target=move.target.meta.name,
    )


def of_staying(service: pb.Service, why: str) -> api.StayingService:
    """As it is answered."""
    return api.StayingService(namespace=service.meta.namespace, service=service.meta.name, why=why)


def of_node(before: pb.Node, after: pb.Node) -> tuple[str, str]:
    if before.spec.availability != after.spec.availability:
        return _AVAILABILITY.get(after.spec.availability, ("Changed", "its availability was changed"))
    if before.spec.drain_deadline != after.spec.drain_deadline:
        return "Drained", "the deadline of its drain was changed"
    if before.spec.lost_since != after.spec.lost_since:
        return "GivenUp", "it does not come back, somebody says: its tasks are replaced on other nodes"
    if list(before.spec.taints) != list(after.spec.taints):
        return "Tainted", "its taints were changed"
    return "Labelled", "its labels were changed"


def of_meta(before: kinds.StoredObject, after: kinds.StoredObject) -> tuple[str, str]:
    return ("Labelled" if before.meta.labels != after.meta.labels else "Annotated"), _changes(before, after)


def of_delete(before: kinds.StoredObject, _after: kinds.StoredObject) -> tuple[str, str]:
    return "Deleted", "its tasks are told to stop" if isinstance(before, pb.Service) else "it was removed"


def _changes(before: kinds.StoredObject, after: kinds.StoredObject) -> str:
    lines = diff.discreet_changes(before, after)
    more = len(lines) - MAX_CHANGES
    return "; ".join(lines[:MAX_CHANGES]) + (f"; and {more} more" if more > 0 else "")

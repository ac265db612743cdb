"""Questions about tasks that several planners ask, and the few changes that they make to them."""

from collections.abc import Iterable

from controlplane.core import places, plan
from manifests import defaults
from protos import states
from protos.orch.v1 import objects_pb2 as pb


def is_live(task: pb.Task) -> bool:
    """It runs, or is on its way there: not ended, and nobody asked it to stop."""
    return task.desired_state <= pb.DESIRED_STATE_RUNNING and not states.is_terminal(task.status.state)


def holds_its_slot(task: pb.Task) -> bool:
    """It was asked to make way for another in its slot, and has not ended yet: its port and memory are still in use.

    One that was asked to go altogether (REMOVE) holds nothing up: if its replicas are wanted again after a scale-down,
    they need not wait for its last words. What it still takes on its node, the scheduler knows. Only beside one that is
    fenced there is never another.
    """
    asked = task.desired_state == pb.DESIRED_STATE_SHUTDOWN or (task.fence and not is_live(task))
    return bool(asked) and not states.is_terminal(task.status.state)


def is_ready(task: pb.Task) -> bool:
    """It does its work."""
    return is_live(task) and task.status.state == states.RUNNING and task.status.ready


def ended_well(task: pb.Task) -> bool:
    return task.status.state == states.COMPLETE


def failed(task: pb.Task) -> bool:
    """It ended because something was wrong with it, not because somebody or its node's loss ended it."""
    return task.status.state in {states.FAILED, states.REJECTED}


def newest(tasks: Iterable[pb.Task]) -> pb.Task | None:
    """The task made last; ids decide between equals, so that everybody sees the same one."""
    return max(tasks, key=lambda task: (task.meta.created_at, task.meta.id), default=None)


def make(
    *,
    service: pb.Service,
    revision: pb.Revision,
    place: places.Place,
    failures: int,
    suffix: str,
    now_ms: int,
    waits_for: str = "",
) -> pb.Task:
    """A new task for a place. `suffix` is its random part; one that waits for something is held when it is prepared."""
    name = f"{service.meta.name}-{place.word}-{suffix}"
    return pb.Task(
        meta=pb.Meta(
            id=name,
            name=name,
            namespace=service.meta.namespace,
            stack=service.meta.stack,
            labels=dict(revision.template.labels),
            generation=1,
            created_at=now_ms,
            updated_at=now_ms,
        ),
        service=service.meta.name,
        revision_id=revision.meta.id,
        slot=place.number,
        target_node_id=place.node_id,
        desired_state=pb.DESIRED_STATE_READY if waits_for else pb.DESIRED_STATE_RUNNING,
        waits_for=waits_for,
        status=pb.TaskStatus(state=states.NEW, at=now_ms),
        failures=failures,
        fence=_fence(service.spec.on_node_loss),
    )


def _fence(policy: pb.NodeLossPolicy) -> int:
    """How long its node may be cut off before the task is killed there; 0 where it may run twice."""
    resolved: pb.NodeLossPolicy = defaults.resolve(policy)
    return resolved.replace_after if policy.fence else 0


def stop(task: pb.Task, desired: pb.DesiredState.ValueType, why: str, now_ms: int) -> plan.Write | None:
    """Asks a task to come to `desired`; None when it was asked already. Desired states only rise.

    A task that no agent has seen ends at once: there is nobody who could report it.
    """
    if task.desired_state >= desired:
        return None
    changed = plan.copy(task)
    changed.desired_state = desired
    if task.status.state in {states.NEW, states.PENDING}:
        states.check(task.status.state, states.SHUTDOWN, states.Owner.CONTROLLER)
        changed.status.CopyFrom(pb.TaskStatus(state=states.SHUTDOWN, at=now_ms, message="stopped before it started"))
    return plan.Write(value=changed, why=why)

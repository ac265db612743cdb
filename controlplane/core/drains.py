"""How far a node is drained, in figures and in one sentence that names who holds it up.

The rule: it is read off the tasks, so that it says what is there and not what somebody meant to do. Who decides is the
planner of each service (`leaving`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from controlplane.core import disruption, places, plan, tasks
from protos import states
from protos.orch.v1 import objects_pb2 as pb

MOST_NAMED = 3
ServiceKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A service with its tasks, wherever they are; None when it is gone."""

    service: pb.Service | None
    tasks: Collection[pb.Task]


def observe(node: pb.Node, on_node: Collection[pb.Task], homes: Mapping[ServiceKey, Home]) -> plan.Write | None:
    """The node with its progress; None when it says so already. `homes`: the services of the tasks on it."""
    changed = plan.copy(node)
    if node.spec.availability == pb.AVAILABILITY_DRAIN:
        changed.status.drain.CopyFrom(_progress(node, on_node, homes))
    else:
        changed.status.ClearField("drain")
    if changed == node:
        return None
    return plan.Write(value=changed, why=changed.status.drain.message or "it is not drained any more")


def _progress(node: pb.Node, on_node: Collection[pb.Task], homes: Mapping[ServiceKey, Home]) -> pb.DrainStatus:
    left = sorted(
        (task for task in on_node if not states.is_terminal(task.status.state)), key=lambda task: task.meta.name
    )
    staying = [task for task in left if tasks.is_live(task)]
    reasons = [_why(task, homes[task.meta.namespace, task.service]) for task in staying[:MOST_NAMED]]
    return pb.DrainStatus(
        observed_generation=node.meta.generation,
        left=len(left),
        message="; ".join(_sentence(len(left), len(staying), reasons)),
    )


def _sentence(left: int, staying: int, reasons: Collection[str]) -> Iterator[str]:
    yield f"{left} task left" if left == 1 else f"{left} tasks left" if left else "it has no tasks any more"
    yield from reasons
    if staying > len(reasons):
        yield f"and {staying - len(reasons)} more that wait"
    if stopping := left - staying:
        yield f"{stopping} stopping"


def _why(task: pb.Task, home: Home) -> str:
    """What it waits for."""
    coming = [other for other in home.tasks if tasks.is_live(other) and _is_beside(other, task)]
    if coming:
        said = f": {coming[0].status.message}" if coming[0].status.message else ""
        return f"{task.meta.name} waits for {coming[0].meta.name} to be ready{said}"
    if tasks.is_ready(task) and not disruption.allowed(home.service, home.tasks):
        return f"{task.meta.name} waits: {task.service} may not miss another one now, see its `disruption`"
    return f"{task.meta.name} is about to leave"


def _is_beside(other: pb.Task, task: pb.Task) -> bool:
    return other.meta.id != task.meta.id and places.key_of(other) == places.key_of(task)

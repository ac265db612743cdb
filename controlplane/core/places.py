"""The places of a service that are to be filled, each with one good task: slots 1 to N, or the nodes that fit.

The rule: a place is named by what is stored in its tasks (`slot` and `target_node_id`), so that every leader finds the
same tasks in it.

A place on a node that takes no tasks at the moment (paused, tainted, or out of reach) is *held*: what is there stays as
it is, and nothing new is made for it. A node that is out of reach hears of nothing, so what it is not to have any more
is told to stop when it is back.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controlplane.core import eligibility
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """`number` counts from 1 in a replicated service; in a global one it is 0 and `node_id` says which it is."""

    number: int = 0
    node_id: str = ""
    word: str = ""
    """What stands for it in the names of its tasks, and in sentences."""
    held: bool = False

    @property
    def key(self) -> "Key":
        """What its tasks say."""
        return self.number, self.node_id


Key = tuple[int, str]


def key_of(task: pb.Task) -> Key:
    """The place that a task fills or filled."""
    return task.slot, task.target_node_id


def by_key(members: Iterable[pb.Task]) -> dict[Key, list[pb.Task]]:
    """The tasks of a service by their place."""
    found: dict[Key, list[pb.Task]] = {}
    for task in members:
        found.setdefault(key_of(task), []).append(task)
    return found


def wanted(
    service: pb.Service,
    template: pb.TaskTemplate,
    nodes: Collection[pb.Node],
    occupied: Collection[str],
    *,
    needed: bool = False,
) -> list[Place]:
    """Every place of the service. `nodes`: all there are; `occupied`: ids of those that it has a live task on;
    `needed`: whether others need it a while longer, though it is stopped.
    """
    if service.spec.stopped and not needed:
        return []
    if service.spec.mode != pb.SERVICE_MODE_GLOBAL:
        return [Place(number=number, word=str(number)) for number in range(1, service.spec.replicas + 1)]
    ordered = sorted(nodes, key=lambda node: (node.meta.name, node.meta.id))
    fitting = [node for node in ordered if not _is_ready(node) or eligibility.eligible(template, node)]
    on_nodes = [_on(template, node) for node in fitting]
    return [place for place in on_nodes if not place.held or place.node_id in occupied]


def _on(template: pb.TaskTemplate, node: pb.Node) -> Place:
    held = not _is_ready(node) or not eligibility.takes_new(template, node)
    return Place(node_id=node.meta.id, word=node.meta.name, held=held)


def _is_ready(node: pb.Node) -> bool:
    return node.status.state == pb.NODE_STATE_READY

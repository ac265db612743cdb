"""Tells how far nodes are drained: one key a node, its id."""

from collections.abc import Iterable, Mapping

from controlplane.core import drains, plan
from controlplane.store.snapshots import Change, Derived, Snapshot
from protos.orch.v1 import objects_pb2 as pb


class Drains:
    """Keeps the progress in the records of nodes that are drained."""

    name = "drains"

    def __init__(self) -> None:
        self._drained = Derived(pb.Node, _ids_of_drained)

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        match change.after or change.before:
            case pb.Node() as node if change.after is not None:
                return [node.meta.id] if _is_drained(node) or node.status.HasField("drain") else []
            case pb.Task() | pb.Service():
                return self._drained.of(snapshot)
            case _:
                return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        return [node.meta.id for node in snapshot.all(pb.Node).values()]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - it has no clock
        found = (snapshot.get(pb.Node, key) for key in sorted(keys))
        writes = (_observe(node, snapshot) for node in found if node is not None)
        return plan.Plan(changes=tuple(write for write in writes if write is not None))

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""


def _observe(node: pb.Node, snapshot: Snapshot) -> plan.Write | None:
    if not _is_drained(node):
        return drains.observe(node, (), {})
    on_node = snapshot.tasks_on(node.meta.id).values()
    homes = {
        (namespace, name): drains.Home(
            service=snapshot.get(pb.Service, name, namespace=namespace),
            tasks=snapshot.tasks_of(namespace, name).values(),
        )
        for namespace, name in {(task.meta.namespace, task.service) for task in on_node}
    }
    return drains.observe(node, on_node, homes)


def _ids_of_drained(nodes: Mapping[str, pb.Node]) -> frozenset[str]:
    return frozenset(node.meta.id for node in nodes.values() if _is_drained(node))


def _is_drained(node: pb.Node) -> bool:
    return node.spec.availability == pb.AVAILABILITY_DRAIN

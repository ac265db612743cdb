"""Keeps the records of nodes true to their sessions, and gives up the tasks of nodes that are lost."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from controlplane.core import addresses, nodes, plan
from controlplane.dispatcher.sessions import Sessions
from controlplane.store.snapshots import Change, Derived, Snapshot
from protos import losses
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Where addresses come from. `cluster`, of the tasks, is cut into subnets with a prefix of `subnet_bits`.
    `services` has the virtual addresses. What is empty is of a family that the cluster does not have.
    """

    cluster: str
    subnet_bits: int
    services: str
    cluster6: str = ""
    subnet_bits6: int = 64
    services6: str = ""


class NodeRecords:
    """One record a node, with its state. Keys are node ids."""

    name = "nodes"

    def __init__(self, sessions: Sessions, ranges: Ranges, grace_until: int) -> None:
        self._sessions = sessions
        self._ranges = ranges
        self._grace_until = grace_until

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - the change says it all
        value = change.after or change.before
        return [value.meta.id] if isinstance(value, pb.Node) else []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        return {node.meta.id for node in snapshot.all(pb.Node).values()} | self._sessions.descriptions().keys()

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:
        return nodes.observe(
            {node.meta.id: node for node in snapshot.all(pb.Node).values()},
            self._sessions.descriptions(),
            keys,
            snapshot.get(pb.Cluster, addresses.CLUSTER),
            announced_ms=self._sessions.announced(),
            cluster_range=self._ranges.cluster,
            subnet_bits=self._ranges.subnet_bits,
            cluster_range6=self._ranges.cluster6,
            subnet_bits6=self._ranges.subnet_bits6,
            grace_until=self._grace_until,
            now_ms=now_ms,
        )

    def done(self, keys: frozenset[str]) -> None:
        """Sessions see the record in the cache."""


class NodeLoss:
    """Ends the tasks of nodes that have been out of reach for longer than their services wait, and has nodes tell where
    the brake keeps it from doing so. Keys are node ids.

    `clock_ms`: one that is never set. What it says of nodes is the only thing that a leader keeps to itself: another
    leader has to count again.
    """

    name = "node-loss"

    def __init__(self, sessions: Sessions, clock_ms: Callable[[], int]) -> None:
        self._sessions, self._clock_ms = sessions, clock_ms
        self._seen_lost: dict[str, tuple[int, int]] = {}
        """By node: since when its record says that it is lost, and when that was seen."""
        self._lost = Derived(pb.Node, _ids_of_lost)

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        match change.after or change.before:
            case pb.Node() as node:
                # The brake looks at all of them, so one that returns may free the others.
                return {node.meta.id, *self._lost.of(snapshot)}
            case pb.Task() as task if task.node_id:
                home = snapshot.get(pb.Node, task.node_id)
                return [task.node_id] if home is None or losses.is_lost(home) else []
            case pb.Service():
                return self._lost.of(snapshot)  # its `replaceAfter` may have changed
            case _:
                return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        used = {task.node_id for task in snapshot.all(pb.Task).values() if task.node_id}
        return used | {node.meta.id for node in snapshot.all(pb.Node).values()}

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:
        vanished = nodes.Vanished.of(snapshot.all(pb.Node).values())
        return plan.join(self._plan_one(snapshot, vanished, key, now_ms) for key in sorted(keys))

    def _plan_one(self, snapshot: Snapshot, vanished: nodes.Vanished, node_id: str, now_ms: int) -> plan.Plan:
        on_node = snapshot.tasks_on(node_id).values()
        node = snapshot.get(pb.Node, node_id)
        if node is None and not on_node:
            self._seen_lost.pop(node_id, None)
            return plan.NOTHING
        if node is None:
            return nodes.give_up_removed(on_node, now_ms, seen_lost_ms=self._watch_removed(node_id))
        seen_lost_ms = self._watch(node)
        is_braked = nodes.braked(node, vanished)
        told = nodes.tell_brake(node, is_braked=is_braked)
        if is_braked or not losses.is_lost(node):
            return told
        services = {(task.meta.namespace, task.service) for task in on_node}
        replace_after_ms = {
            (namespace, name): nodes.replace_after_ms(service)
            for namespace, name in services
            if (service := snapshot.get(pb.Service, name, namespace=namespace)) is not None
        }
        given_up = nodes.give_up(node, on_node, replace_after_ms, now_ms, seen_lost_ms=seen_lost_ms)
        return plan.join([told, given_up])

    def _watch(self, node: pb.Node) -> int:
        """For how long the node was seen to be lost; 0 when it has a session that its record does not tell of yet."""
        if not losses.is_lost(node) or self._sessions.get(node.meta.id) is not None:
            self._seen_lost.pop(node.meta.id, None)
            return 0
        since, seen_at = self._seen_lost.get(node.meta.id, (0, 0))
        if since != node.status.since:
            since, seen_at = self._seen_lost[node.meta.id] = node.status.since, self._clock_ms()
        return self._clock_ms() - seen_at

    def _watch_removed(self, node_id: str) -> int:
        """For how long the node was seen without a session, before its record was removed and since."""
        if self._sessions.get(node_id) is not None:
            self._seen_lost.pop(node_id, None)
            return 0
        _, seen_at = self._seen_lost.setdefault(node_id, (0, self._clock_ms()))
        return self._clock_ms() - seen_at

    def done(self, keys: frozenset[str]) -> None:
        """The services see their tasks ended."""


def _ids_of_lost(known: Mapping[str, pb.Node]) -> frozenset[str]:
    return frozenset(node.meta.id for node in known.values() if losses.is_lost(node))

"""Rates out of counters: what has come since the last look, for each second of the node's own time.

Pure. The rule: a counter that is lower than before has begun anew, so all that it says has come since; and what was not
there before has no rate, because nobody knows how long it took. Counts of 0 are not sent, so a service that is new on a
node that was there before began at 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protos.orch.v1 import control_pb2 as control

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Of a service, a second, over all nodes."""

    connections: float = 0
    refused: float = 0
    packets: float = 0
    bytes: float = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            connections=self.connections + other.connections,
            refused=self.refused + other.refused,
            packets=self.packets + other.packets,
            bytes=self.bytes + other.bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Of a task or a node: processors that are kept busy (0.5: half of one), and bytes."""

    cpu: float
    memory_bytes: int


Nodes = Mapping[str, control.NodeUsage]
"""What nodes have counted, by name."""


def services(before: Nodes, now: Nodes) -> Mapping[tuple[str, str], Traffic]:
    """By namespace and name."""
    found: dict[tuple[str, str], Traffic] = {}
    for node, last, seconds in _pairs(before, now):
        known = {(one.namespace, one.service): one for one in last.services}
        for one in node.services:
            name = (one.namespace, one.service)
            earlier = known.get(name, control.ServiceTraffic())
            found[name] = found.get(name, Traffic()) + Traffic(
                connections=risen(earlier.connections, one.connections) / seconds,
                refused=risen(earlier.refused, one.refused) / seconds,
                packets=risen(earlier.packets, one.packets) / seconds,
                bytes=risen(earlier.bytes, one.bytes) / seconds,
            )
    return found


def tasks(before: Nodes, now: Nodes) -> Sequence[tuple[control.NodeUsage, control.TaskUsage, Share]]:
    """With the node that each is on. One that was not there before has used nothing yet."""
    found = []
    for node, last, seconds in _pairs(before, now):
        known = {one.task_id: one.cpu_ns for one in last.tasks}
        for one in node.tasks:
            used = risen(known.get(one.task_id, one.cpu_ns), one.cpu_ns) / NANOSECONDS / seconds
            found.append((node, one, Share(cpu=used, memory_bytes=one.memory)))
    return found


def nodes(before: Nodes, now: Nodes) -> Sequence[tuple[control.NodeUsage, Share]]:
    """Of the machines as a whole."""
    return [
        (node, Share(cpu=risen(last.cpu_ns, node.cpu_ns) / NANOSECONDS / seconds, memory_bytes=node.memory))
        for node, last, seconds in _pairs(before, now)
    ]


def risen(before: int, now: int) -> int:
    """(7, 9) → 2; (7, 3) → 3."""
    return now - before if now >= before else now


def _pairs(before: Nodes, now: Nodes) -> Sequence[tuple[control.NodeUsage, control.NodeUsage, float]]:
    """Nodes that have told twice, and the seconds between; a clock that went back is another machine's."""
    return [
        (node, last, (node.at_ns - last.at_ns) / NANOSECONDS)
        for name, node in sorted(now.items())
        if (last := before.get(name)) is not None and not node.problem and not last.problem and node.at_ns > last.at_ns
    ]

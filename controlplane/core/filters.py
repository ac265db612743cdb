"""Why a node does not take a task. Each filter looks at all nodes at once and can say what it found.

A filter answers with a mask of the nodes that it lets through. Only when a task finds no place is it asked for its
reasons, node by node; the order of `FILTERS` decides which reason a node is counted under: the most basic one first.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.core import fleet as fleets
from protos import containers, units
from protos.orch.v1 import objects_pb2 as pb

MAX_EXAMPLES = 3
NODE_STATE_WORDS: Mapping[int, str] = {
    pb.NODE_STATE_DISCONNECTED: "disconnected",
    pb.NODE_STATE_DOWN: "down",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`passes`: the nodes that take the template. `detail`: why the node of this row does not, in words."""

    name: str
    passes: Callable[[fleets.Fleet, pb.TaskTemplate], fleets.Mask]
    detail: Callable[[fleets.Fleet, pb.TaskTemplate, int], str]


def _state_detail(fleet: fleets.Fleet, _template: pb.TaskTemplate, row: int) -> str:
    return f"the node is {NODE_STATE_WORDS.get(fleet.nodes[row].status.state, 'not ready')}"


def _availability_detail(fleet: fleets.Fleet, _template: pb.TaskTemplate, row: int) -> str:
    drained = fleet.nodes[row].spec.availability == pb.AVAILABILITY_DRAIN
    return "the node is drained" if drained else "the node is paused"


def _cpu_detail(fleet: fleets.Fleet, template: pb.TaskTemplate, row: int) -> str:
    needed, free = containers.reserved(template).cpu, max(int(fleet.free_cpu[row]), 0)
    return f"not enough processors: needs {units.format_cpu(needed)}, {units.format_cpu(free)} is free"


def _memory_detail(fleet: fleets.Fleet, template: pb.TaskTemplate, row: int) -> str:
    needed, free = containers.reserved(template).memory, max(int(fleet.free_memory[row]), 0)
    return f"not enough memory: needs {units.about_bytes(needed)}, {units.about_bytes(free)} is free"


def _ports_detail(fleet: fleets.Fleet, template: pb.TaskTemplate, row: int) -> str:
    taken = sorted(fleet.holders(row, template).items())
    return ", ".join(f"port {number} is taken by {holder}" for (_, number), holder in taken)


def _ports_free(fleet: fleets.Fleet, template: pb.TaskTemplate) -> fleets.Mask:
    if not fleets.host_ports(template):
        return np.ones(len(fleet.nodes), dtype=np.bool_)
    return np.array([not fleet.holders(row, template) for row in range(len(fleet.nodes))], dtype=np.bool_)


def _users_detail(fleet: fleets.Fleet, _template: pb.TaskTemplate, row: int) -> str:
    why = fleet.nodes[row].status.description.no_users
    return f"the node gives no container users of its own, as `userns: auto` asks: {why}"


def _users_given(fleet: fleets.Fleet, template: pb.TaskTemplate) -> fleets.Mask:
    """Only where it is written out: a template that leaves it open runs everywhere."""
    if template.container.userns != pb.USER_NAMESPACE_AUTO:
        return np.ones(len(fleet.nodes), dtype=np.bool_)
    return np.array([not node.status.description.no_users for node in fleet.nodes], dtype=np.bool_)


FILTERS = (
    Filter(name="state", passes=lambda fleet, _: fleet.ready, detail=_state_detail),
    Filter(name="availability", passes=lambda fleet, _: fleet.active, detail=_availability_detail),
    Filter(name="users", passes=_users_given, detail=_users_detail),
    Filter(
        name="tasks",
        passes=lambda fleet, _: fleet.free_tasks > 0,
        detail=lambda _fleet, _template, _row: "the node has as many tasks as it takes",
    ),
    Filter(
        name="cpu",
        passes=lambda fleet, template: fleet.free_cpu >= containers.reserved(template).cpu,
        detail=_cpu_detail,
    ),
    Filter(
        name="memory",
        passes=lambda fleet, template: fleet.free_memory >= containers.reserved(template).memory,
        detail=_memory_detail,
    ),
    Filter(name="ports", passes=_ports_free, detail=_ports_detail),
)


def passing(fleet: fleets.Fleet, template: pb.TaskTemplate) -> fleets.Mask:
    """The nodes that every filter lets through."""
    mask = np.ones(len(fleet.nodes), dtype=np.bool_)
    for one in FILTERS:
        mask &= one.passes(fleet, template)
    return mask


def takes(fleet: fleets.Fleet, template: pb.TaskTemplate, row: int) -> bool:
    """Whether one node takes one more task, after others were booked on it."""
    reserved = containers.reserved(template)
    return bool(
        fleet.free_tasks[row] > 0
        and fleet.free_cpu[row] >= reserved.cpu
        and fleet.free_memory[row] >= reserved.memory
        and not fleet.holders(row, template)
    )


def explain(fleet: fleets.Fleet, template: pb.TaskTemplate) -> list[pb.Refusal]:
    """Why no node takes the template: reasons with the number of nodes, most frequent first."""
    examples: dict[tuple[str, str], list[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    undecided = np.ones(len(fleet.nodes), dtype=np.bool_)
    for one in FILTERS:
        refused = undecided & ~one.passes(fleet, template)
        undecided &= ~refused
        for row in np.flatnonzero(refused).tolist():
            reason = (one.name, one.detail(fleet, template, row))
            counts[reason] += 1
            examples.setdefault(reason, []).append(fleet.nodes[row].meta.name)
    return [
        pb.Refusal(filter=name, detail=detail, nodes=count, examples=examples[name, detail][:MAX_EXAMPLES])
        for (name, detail), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def sentence(refusals: Sequence[pb.Refusal]) -> str:
    """`no node takes it: 2 nodes: the node is paused; 1 node (n3): not enough memory: needs 4Gi, 1Gi is free`."""
    if not refusals:
        return "no node takes it: the cluster has no nodes"
    parts = [
        f"{refusal.nodes} node{'s' if refusal.nodes != 1 else ''} ({', '.join(refusal.examples)}"
        f"{', …' if refusal.nodes > len(refusal.examples) else ''}): {refusal.detail}"
        for refusal in refusals
    ]
    return "no node takes it: " + "; ".join(parts)

"""Why a node does not take a task. Each filter looks at all nodes at once and can say what it found.

A filter answers with a mask of the nodes that it lets through. Only when a task finds no place is it asked for its
reasons, node by node (`refusals`); the order of `FILTERS` decides which reason a node is counted under: the most basic
one first.

STILL filters answer the same however many tasks of the group are placed; those of ROOM are exhausted node by node; and
those of MOVING (`neighbourhood`) may let a node through again when others were given tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from controlplane.core import ask as asking
from controlplane.core import attributes, neighbourhood
from controlplane.core import fleet as fleets
from controlplane.core.ask import Ask
from protos import absence, taints, units
from protos.orch.v1 import objects_pb2 as pb

NODE_STATE_WORDS: Mapping[int, str] = {
    pb.NODE_STATE_DISCONNECTED: "disconnected",
    pb.NODE_STATE_DOWN: "down",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """`passes`: the nodes that take what is asked. `details`: in words, why the node of a row does not; what that needs
    of all nodes is worked out once.
    """

    name: str
    passes: Callable[[fleets.Fleet, Ask], fleets.Mask]
    details: Callable[[fleets.Fleet, Ask], neighbourhood.Words]


def everywhere(fleet: fleets.Fleet) -> fleets.Mask:
    """All nodes."""
    return np.ones(len(fleet.nodes), dtype=np.bool_)


def _by_row(detail: Callable[[fleets.Fleet, Ask, int], str]) -> Callable[[fleets.Fleet, Ask], neighbourhood.Words]:
    """For words that need no look at other nodes."""
    return lambda fleet, ask: partial(detail, fleet, ask)


# Nodes ----------------------------------------------------------------------------------------------------------------


def _state_detail(fleet: fleets.Fleet, _ask: Ask, row: int) -> str:
    node = fleet.nodes[row]
    if absence.is_expected(node):
        return "the node's agent is being restarted"
    return f"the node is {NODE_STATE_WORDS.get(node.status.state, 'not ready')}"


def _availability_detail(fleet: fleets.Fleet, _ask: Ask, row: int) -> str:
    drained = fleet.nodes[row].spec.availability == pb.AVAILABILITY_DRAIN
    return "the node is drained" if drained else "the node is paused"


def _users_detail(fleet: fleets.Fleet, _ask: Ask, row: int) -> str:
    why = fleet.nodes[row].status.description.no_users
    return f"the node gives no container users of its own, as `userns: auto` asks: {why}"


def _users_given(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    """Only where it is written out: a template that leaves it open runs everywhere."""
    if not ask.own_users:
        return everywhere(fleet)
    return np.array([not node.status.description.no_users for node in fleet.nodes], dtype=np.bool_)


def _constraints_fulfilled(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    mask = everywhere(fleet)
    for constraint in ask.constraints:
        column = fleet.column(constraint.attribute)
        mask &= column.where({value: constraint.fulfilled(value) for value in (*column.values, None)})
    return mask


def _constraints_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    for constraint in ask.constraints:
        value = fleet.column(constraint.attribute).value(row)
        if not constraint.fulfilled(value):
            has = f"it has {value}" if value is not None else "it has none"
            told = "" if value is not None and constraint.attribute in attributes.OF_EACH else f": {has}"
            return f"constraint {constraint.text} is not fulfilled{told}"
    raise AssertionError("asked about a node that fulfils all")


def _refusing(node: pb.Node, ask: Ask) -> pb.Taint | None:
    """The first taint that keeps the task away."""
    return next((taint for taint in node.spec.taints if _refuses(taint, ask)), None)


def _refuses(taint: pb.Taint, ask: Ask) -> bool:
    prefers = taints.effect_of(taint) == pb.TAINT_EFFECT_PREFER_NO_SCHEDULE
    return not prefers and not asking.stands(ask.tolerations, taint)


def _taints_stood(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    mask = everywhere(fleet)
    for row in fleet.tainted:
        mask[row] = _refusing(fleet.nodes[row], ask) is None
    return mask


def _taints_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    taint = _refusing(fleet.nodes[row], ask)
    assert taint is not None, "asked about a node that takes it"
    return f"taint {taints.words(taint)} is not tolerated"


# Room -----------------------------------------------------------------------------------------------------------------


def _cpu_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    needed, free = units.format_cpu(ask.demand.cpu), units.format_cpu(max(int(fleet.free_cpu[row]), 0))
    return f"not enough processors: needs {needed}, {free} is free"


def _memory_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    needed, free = units.about_bytes(ask.demand.memory), units.about_bytes(max(int(fleet.free_memory[row]), 0))
    return f"not enough memory: needs {needed}, {free} is free"


def _pids_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    return f"not enough processes: needs {ask.demand.pids}, {max(int(fleet.free_pids[row]), 0)} are free"


def _disk_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    needed, free = units.about_bytes(ask.demand.disk), units.about_bytes(max(int(fleet.free_disk[row]), 0))
    return f"not enough disk: needs {needed}, {free} is free"


def _generic_free(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    if not ask.demand.generic:
        return everywhere(fleet)
    return np.array([not _missing(free, ask) for free in fleet.generic], dtype=np.bool_)


def _missing(free: Mapping[str, Sequence[str]], ask: Ask) -> str:
    """The first resource that there is not enough of."""
    return next((name for name, count in ask.demand.generic.items() if len(free.get(name, ())) < count), "")


def _generic_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    name = _missing(fleet.generic[row], ask)
    if name not in fleet.nodes[row].status.description.capacity.generic:
        return f"the node has no {name}"
    return f"not enough {name}: needs {ask.demand.generic[name]}, {len(fleet.generic[row][name])} is free"


def _ports_free(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    if not ask.demand.ports:
        return everywhere(fleet)
    return np.array([not fleet.holders(row, ask.demand.ports) for row in range(len(fleet.nodes))], dtype=np.bool_)


def _ports_detail(fleet: fleets.Fleet, ask: Ask, row: int) -> str:
    taken = sorted(fleet.holders(row, ask.demand.ports).items())
    return ", ".join(f"port {number} is taken by {holder}" for (_, number), holder in taken)


def _per_node_left(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    if not ask.max_per_node:
        return everywhere(fleet)
    return np.asarray(fleet.rows_of(fleet.neighbours(ask.key).present) < ask.max_per_node, dtype=np.bool_)


def _even_enough(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    if not any(skew for _, skew in ask.spread):
        return everywhere(fleet)
    return neighbourhood.even_enough(fleet, ask, eligible(fleet, ask))


# All of them ----------------------------------------------------------------------------------------------------------

STILL: Sequence[Filter] = (
    Filter(name="state", passes=lambda fleet, _: fleet.ready, details=_by_row(_state_detail)),
    Filter(name="availability", passes=lambda fleet, _: fleet.active, details=_by_row(_availability_detail)),
    Filter(name="users", passes=_users_given, details=_by_row(_users_detail)),
    Filter(name="constraints", passes=_constraints_fulfilled, details=_by_row(_constraints_detail)),
    Filter(name="taints", passes=_taints_stood, details=_by_row(_taints_detail)),
)
"""What makes a node eligible, whatever else is on it."""

MOVING: Sequence[Filter] = (
    Filter(name="near", passes=neighbourhood.near_enough, details=neighbourhood.near_details),
    Filter(name="apart", passes=neighbourhood.apart_enough, details=neighbourhood.apart_details),
    Filter(
        name="spread",
        passes=_even_enough,
        details=lambda fleet, ask: neighbourhood.uneven_details(fleet, ask, eligible(fleet, ask)),
    ),
)

ROOM: Sequence[Filter] = (
    Filter(
        name="maxPerNode",
        passes=_per_node_left,
        details=_by_row(
            lambda _fleet, ask, _row: f"the node has {ask.max_per_node} of its tasks, the most that it takes"
        ),
    ),
    Filter(
        name="tasks",
        passes=lambda fleet, _: fleet.free_tasks > 0,
        details=_by_row(lambda _fleet, _ask, _row: "the node has as many tasks as it takes"),
    ),
    Filter(name="cpu", passes=lambda fleet, ask: _enough(fleet.free_cpu, ask.demand.cpu), details=_by_row(_cpu_detail)),
    Filter(
        name="memory",
        passes=lambda fleet, ask: _enough(fleet.free_memory, ask.demand.memory),
        details=_by_row(_memory_detail),
    ),
    Filter(
        name="pids", passes=lambda fleet, ask: _enough(fleet.free_pids, ask.demand.pids), details=_by_row(_pids_detail)
    ),
    Filter(
        name="disk", passes=lambda fleet, ask: _enough(fleet.free_disk, ask.demand.disk), details=_by_row(_disk_detail)
    ),
    Filter(name="generic", passes=_generic_free, details=_by_row(_generic_detail)),
    Filter(name="ports", passes=_ports_free, details=_by_row(_ports_detail)),
)

FILTERS = (*STILL, *MOVING, *ROOM)


def _enough(free: fleets.Amounts, needed: int) -> fleets.Mask:
    """Who needs nothing finds enough on a node that has been promised more than it has."""
    return np.asarray(free >= needed, dtype=np.bool_) if needed else np.ones(len(free), dtype=np.bool_)


def eligible(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    """The nodes that might take it, if they had room."""
    return _all_pass(STILL, fleet, ask)


def passing(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    """The nodes that every filter lets through."""
    return _all_pass(FILTERS, fleet, ask)


def _all_pass(filters: Iterable[Filter], fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    mask = everywhere(fleet)
    for one in filters:
        mask &= one.passes(fleet, ask)
    return mask


def room(fleet: fleets.Fleet, ask: Ask) -> fleets.Amounts:
    """How many of its tasks each node has room for, one after another.

    Example: 1000m and 2Gi are free, a task takes 300m and 1Gi → 2.
    """
    left = np.maximum(fleet.free_tasks, 0)
    for free, needed in (
        (fleet.free_cpu, ask.demand.cpu),
        (fleet.free_memory, ask.demand.memory),
        (fleet.free_pids, ask.demand.pids),
        (fleet.free_disk, ask.demand.disk),
    ):
        left = np.minimum(left, np.maximum(free, 0) // needed) if needed else left
    if ask.demand.generic:
        left = np.minimum(left, _generic_room(fleet, ask))
    if ask.demand.ports:
        left = np.minimum(left, _ports_free(fleet, ask))
    if ask.max_per_node:
        left = np.minimum(left, ask.max_per_node - fleet.rows_of(fleet.neighbours(ask.key).present))
    return np.maximum(left, 0)


def _generic_room(fleet: fleets.Fleet, ask: Ask) -> fleets.Amounts:
    wanted = [(name, count) for name, count in ask.demand.generic.items() if count]
    most = [
        min((len(free.get(name, ())) // count for name, count in wanted), default=fleets.UNLIMITED)
        for free in fleet.generic
    ]
    return np.array(most, dtype=np.int64)

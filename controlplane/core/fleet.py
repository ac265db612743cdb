"""The nodes as the scheduler sees them: one row a node, one array a property, so that a filter is one comparison.

The rule: what is booked is seen by whoever asks next, whether it was placed before or a moment ago.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from controlplane.core import ask as asking
from controlplane.core import demand as demands
from controlplane.core import locality
from controlplane.core import tasks as knowing
from controlplane.core.attributes import attribute_of
from controlplane.core.demand import HostPort
from protos import states
from protos.orch.v1 import objects_pb2 as pb

__all__ = ["Amounts", "Column", "Fleet", "HostPort", "Mask", "holder", "survey"]

DEFAULT_TASKS = 1_000
"""How many tasks a node takes when its agent does not say."""
UNLIMITED = 2**62
"""What a node has of something that its agent does not say."""

Mask = npt.NDArray[np.bool_]
Amounts = npt.NDArray[np.int64]

_NO_TEMPLATE = pb.TaskTemplate()
_ACTIVE = frozenset({pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """An attribute of all nodes: for each row the index of its value, or -1 where the node has none."""

    codes: Amounts
    values: Sequence[str]

    def value(self, row: int) -> str | None:
        code = int(self.codes[row])
        return self.values[code] if code >= 0 else None

    def where(self, holds: Mapping[str | None, bool]) -> Mask:
        """The rows whose value (None: no value) holds."""
        of_code = np.array([*(holds[value] for value in self.values), holds[None]], dtype=np.bool_)
        return np.asarray(of_code[self.codes], dtype=np.bool_)  # -1 is the last one


@dataclass(slots=True, kw_only=True)
class Neighbours:
    """Where the tasks of one service are: how many on which row."""

    present: Counter[int] = field(default_factory=Counter)
    """Those that have not ended."""
    wanted: Counter[int] = field(default_factory=Counter)
    """Those among them that nobody has told to stop."""
    promised: Counter[int] = field(default_factory=Counter)
    """Those among them for which there is no room yet: they may still come to be elsewhere."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    """What nodes have left. Rows are in the order of names."""

    nodes: Sequence[pb.Node]
    row_of: Mapping[str, int]
    ready: Mask
    active: Mask
    tainted: Sequence[int]
    """The rows of nodes that have taints: mostly few."""
    has_cpu: Amounts
    has_memory: Amounts
    free_cpu: Amounts
    free_memory: Amounts
    free_pids: Amounts
    free_disk: Amounts
    free_tasks: Amounts
    load: Amounts
    """Tasks on the node, whatever their service."""
    generic: list[dict[str, list[str]]]
    """Ids that are free on the node, by the resource's name."""
    ports: list[dict[HostPort, str]]
    """Ports that are taken on the node, and by whom."""
    everywhere: Mapping[HostPort, str]
    """Ports that services publish on every node, and which."""
    stock: locality.Stock
    shelves: Amounts
    """The numbers by which the stock knows the nodes."""
    services: dict[asking.ServiceKey, Neighbours] = field(default_factory=dict)
    repellers: dict[asking.ServiceKey, list[tuple[asking.ServiceKey, str, Counter[int]]]] = field(default_factory=dict)
    """By the service that is not wanted near: whose tasks do not want it, by which attribute, and on which rows."""
    columns: dict[str, Column] = field(default_factory=dict)

    def column(self, attribute: str) -> Column:
        """The values of an attribute, worked out once."""
        found = self.columns.get(attribute)
        if found is None:
            texts = [attribute_of(node, attribute) for node in self.nodes]
            values = sorted({text for text in texts if text is not None})
            index = {value: code for code, value in enumerate(values)}
            codes = np.array([-1 if text is None else index[text] for text in texts], dtype=np.int64)
            found = self.columns[attribute] = Column(codes=codes, values=values)
        return found

    def lacking(self, revision_id: str) -> locality.Lacking | None:
        """What the nodes have to fetch of the images of a revision; None when that sets none of them apart."""
        return self.stock.lacking(revision_id, self.shelves)

    def rows_of(self, counted: Mapping[int, int]) -> Amounts:
        """Counts by row as an array."""
        counts = np.zeros(len(self.nodes), dtype=np.int64)
        for row, count in counted.items():
            counts[row] = count
        return counts

    def neighbours(self, key: asking.ServiceKey) -> Neighbours:
        """Of a service that may have none."""
        return self.services.get(key) or Neighbours()

    def holders(self, row: int, ports: Iterable[HostPort]) -> dict[HostPort, str]:
        """Those of the ports that are not free on a node, and who has them."""
        taken = {port: self.ports[row].get(port) or self.everywhere.get(port, "") for port in ports}
        return {port: holder for port, holder in taken.items() if holder}

    def take(self, row: int, demand: demands.Demand, holder: str, count: int = 1) -> None:
        """Books tasks on a node, but for the generic resources that they get. `holder`: their service, in words."""
        self.free_cpu[row] -= demand.cpu * count
        self.free_memory[row] -= demand.memory * count
        self.free_pids[row] -= demand.pids * count
        self.free_disk[row] -= demand.disk * count
        self.free_tasks[row] -= count
        self.load[row] += count
        if demand.ports:
            self.ports[row].update(dict.fromkeys(demand.ports, holder))

    def take_all(self, counts: Mapping[int, int], ask: asking.Ask, holder: str) -> None:
        """Books the tasks of a group: how many on which row."""
        rows, each = np.array(list(counts), dtype=np.int64), np.array(list(counts.values()), dtype=np.int64)
        demand = ask.demand
        self.free_cpu[rows] -= demand.cpu * each
        self.free_memory[rows] -= demand.memory * each
        self.free_pids[rows] -= demand.pids * each
        self.free_disk[rows] -= demand.disk * each
        self.free_tasks[rows] -= each
        self.load[rows] += each
        neighbours = self.services.setdefault(ask.key, Neighbours())
        neighbours.present.update(counts)
        neighbours.wanted.update(counts)
        apart = [one for one in ask.apart if not one.weight]
        for row, count in counts.items() if apart or demand.ports else ():
            self.ports[row].update(dict.fromkeys(demand.ports, holder))
            self.repel(row, ask.key, apart, count)

    def settle(self, row: int, ask: asking.Ask, count: int = 1) -> None:
        """Counts tasks among the neighbours on a node."""
        neighbours = self.services.setdefault(ask.key, Neighbours())
        neighbours.present[row] += count
        neighbours.wanted[row] += count
        self.repel(row, ask.key, [one for one in ask.apart if not one.weight], count)

    def promise(self, row: int, ask: asking.Ask) -> None:
        """Books a task on a node where others make way for it."""
        self.take(row, ask.demand, f"Service {ask.namespace}/{ask.service}")
        self.settle(row, ask)
        self.services[ask.key].promised[row] += 1

    def leave(self, row: int, ask: asking.Ask) -> None:
        """One task of the group is on the node no more, but for the generic resources that it had."""
        self.take(row, ask.demand, "", -1)
        for port in ask.demand.ports:
            self.ports[row].pop(port, None)
        self.settle(row, ask, -1)

    def repel(self, row: int, owner: asking.ServiceKey, apart: Iterable[asking.Affinity], count: int) -> None:
        """Notes whom the owner's tasks on a node have to be apart from."""
        for one in apart:
            entries = self.repellers.setdefault((owner[0], one.service), [])
            known = next((rows for other, by, rows in entries if (other, by) == (owner, one.by)), None)
            if known is None:
                known = Counter()
                entries.append((owner, one.by, known))
            known[row] += count

    def grant(self, row: int, generic: Mapping[str, int]) -> dict[str, list[str]]:
        """Takes the first free ids of each resource on a node."""
        granted = {}
        for name, count in generic.items():
            free = self.generic[row].get(name, [])
            assert len(free) >= count, f"{name} is given twice on {self.nodes[row].meta.name}"
            granted[name], self.generic[row][name] = free[:count], free[count:]
        return granted


def holder(task: pb.Task) -> str:
    """How messages name who takes something."""
    return f"Service {task.meta.namespace}/{task.service}"


def survey(
    nodes: Iterable[pb.Node],
    tasks: Collection[pb.Task],
    templates: Mapping[str, pb.TaskTemplate],
    everywhere: Mapping[HostPort, str],
    stock: locality.Stock = locality.EMPTY,
) -> Fleet:
    """The fleet with all tasks that have a node and have not ended. `templates` by revision id; `everywhere`: the ports
    that services publish on every node.
    """
    fleet = _empty(sorted(nodes, key=lambda node: (node.meta.name, node.meta.id)), everywhere, stock)
    _Booking(fleet, templates).book(tasks)
    return fleet


def _empty(ordered: Sequence[pb.Node], everywhere: Mapping[HostPort, str], stock: locality.Stock) -> Fleet:
    capacities = [node.status.description.capacity for node in ordered]
    told = [
        (one.cpu, one.memory, one.pids or UNLIMITED, one.disk or UNLIMITED, one.tasks or DEFAULT_TASKS)
        for one in capacities
    ]
    cpu, memory, pids, disk, most_tasks = np.array(told, dtype=np.int64).reshape(-1, 5).T.copy()
    return Fleet(
        nodes=ordered,
        row_of={node.meta.id: row for row, node in enumerate(ordered)},
        tainted=[row for row, node in enumerate(ordered) if node.spec.taints],
        ready=np.array([node.status.state == pb.NODE_STATE_READY for node in ordered], dtype=np.bool_),
        active=np.array([node.spec.availability in _ACTIVE for node in ordered], dtype=np.bool_),
        has_cpu=cpu.copy(),
        has_memory=memory.copy(),
        free_cpu=cpu,
        free_memory=memory,
        free_pids=pids,
        free_disk=disk,
        free_tasks=most_tasks,
        load=np.zeros(len(ordered), dtype=np.int64),
        generic=[{name: list(one.ids) for name, one in capacity.generic.items()} for capacity in capacities],
        ports=[{} for _ in ordered],
        everywhere=everywhere,
        stock=stock,
        shelves=stock.holders.numbers(node.meta.id for node in ordered),
    )


class _Booking:
    """Books tasks that have a node. What is the same for all tasks of a revision is worked out once."""

    def __init__(self, fleet: Fleet, templates: Mapping[str, pb.TaskTemplate]) -> None:
        self._fleet = fleet
        self._templates = templates
        self._granted: dict[int, dict[str, set[str]]] = {}

    def book(self, tasks: Iterable[pb.Task]) -> None:
        fleet = self._fleet
        taken: dict[tuple[str, int], list[pb.Task]] = {}
        for task in tasks:
            row = fleet.row_of.get(task.node_id)
            if row is not None and not states.is_terminal(task.status.state):
                taken.setdefault((task.revision_id, row), []).append(task)
        known: dict[str, tuple[demands.Demand, list[asking.Affinity]]] = {}
        for (revision_id, row), group in taken.items():
            if revision_id not in known:
                template = self._templates.get(revision_id, _NO_TEMPLATE)
                known[revision_id] = demands.of(template), asking.hard_apart(template)
            self._book_group(row, group, *known[revision_id])
        self._remove_granted()

    def _book_group(
        self, row: int, group: Sequence[pb.Task], demand: demands.Demand, apart: Sequence[asking.Affinity]
    ) -> None:
        fleet, first = self._fleet, group[0]
        fleet.take(row, demand, holder(first), len(group))
        owner = (first.meta.namespace, first.service)
        neighbours = fleet.services.setdefault(owner, Neighbours())
        neighbours.present[row] += len(group)
        neighbours.wanted[row] += sum(map(knowing.is_live, group))
        fleet.repel(row, owner, apart, len(group))
        if demand.generic:
            for task in group:
                for name, granted in task.granted.items():
                    self._granted.setdefault(row, {}).setdefault(name, set()).update(granted.ids)

    def _remove_granted(self) -> None:
        for row, taken in self._granted.items():
            for name, ids in taken.items():
                free = self._fleet.generic[row].get(name, [])
                self._fleet.generic[row][name] = [one for one in free if one not in ids]

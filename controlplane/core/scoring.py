"""How nodes that take a task are compared: by one tuple, of which the smaller is better.

    failures   of the revision on the node in the last minutes (`failures.LATELY_MS`): it is tried elsewhere first
    taints     that only ask to be avoided, and are not tolerated
    −wishes    the weights of preferences, `near` and `apart` that the node fulfils
    spread     for each attribute: how many of its tasks the node's part has
    then, to spread:   its own tasks on the node, all tasks on the node and what it has to fetch (`locality`)
    or, to fill up:    −how full the node will be (thousandths), −all tasks on the node, but for what it has to fetch
    row        the order of names

Example: web has tasks on n1 and n2, n3 is empty but for a database → n3.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import TypeAlias

import numpy as np

from controlplane.core import ask as asking
from controlplane.core import fleet as fleets
from controlplane.core import levelling, locality, neighbourhood
from controlplane.core.ask import Ask
from manifests import placement
from protos import taints
from protos.orch.v1 import objects_pb2 as pb

Score: TypeAlias = tuple[int, ...]

WISHES = 2
"""Where the wishes stand in a score."""
SPREADS = 3
"""Where the first spread stands."""


class Strategy(Enum):
    """What to do with nodes that are otherwise as good as each other."""

    SPREAD = "spread"
    BINPACK = "binpack"


class Scoring:
    """The scores of one group's nodes."""

    def __init__(self, fleet: fleets.Fleet, ask: Ask, failures: Mapping[int, int], strategy: Strategy) -> None:
        mine = fleet.neighbours(ask.key)
        self._fleet, self._ask, self._strategy = fleet, ask, strategy
        self._failures = failures
        self._lacking = fleet.lacking(ask.revision_id)
        self._load, self._step = _weighed(fleet.load, self._lacking, strategy)
        self._taints = {row: _avoided(fleet.nodes[row], ask) for row in fleet.tainted}
        self._wishes = _wishes(fleet, ask)
        self._present, self._wanted = mine.present, mine.wanted
        self._single = [by in placement.ONE_NODE and not skew for by, skew in ask.spread]
        self._own = [
            (-one.weight if near else one.weight, near)
            for near, affinities in ((True, ask.near), (False, ask.apart))
            for one in affinities
            if one.weight and one.service == ask.service and one.by in placement.ONE_NODE
        ]
        self.is_level = strategy is Strategy.SPREAD and not any(self._single) and not self._own
        """Each task makes its node worse by as much as any other node: by one of its own tasks, and a step of load."""

    def of(self, row: int, taken: int) -> Score:
        """A node's score once `taken` tasks of the group were given to it, without the shares of its cell."""
        # `get`, since what a Counter does not have costs it three times as much; and most groups wish for nothing.
        present, wanted = self._present.get(row, 0) + taken, self._wanted.get(row, 0) + taken
        wishes = sum(weight for weight, near in self._own if (wanted if near else present)) if self._own else 0
        return (
            self._failures.get(row, 0),
            self._taints.get(row, 0),
            wishes - int(self._wishes[row]),
            *[wanted if single else 0 for single in self._single],
            *self._last(row, present, taken),
            row,
        )

    def in_order(self, rows: fleets.Amounts) -> fleets.Amounts:
        """The rows by their scores before any task was given, as `of` says them; rows come in ascending order."""
        parts = [column[rows] for column in self._columns]
        telling = [part for part in parts if part.size and (part != part[0]).any()]
        return rows[np.lexsort(telling[::-1])] if telling else rows

    def levels(self, rows: fleets.Amounts) -> levelling.Levels:
        """What `levelling` has to know of these rows, which come in the order of their scores."""
        assert self.is_level, "other scores do not grow by the same everywhere"
        *classes, present, load = (column[rows] for column in self._columns)
        return levelling.Levels(classes=classes, own=present, load=load, rows=rows, step=self._step)

    @cached_property
    def _columns(self) -> Sequence[fleets.Amounts]:
        """The parts of the scores as arrays, the most important first; those that are 0 everywhere are left out."""
        rows_of = self._fleet.rows_of
        found = [rows_of(counted) for counted in (self._failures, self._taints) if counted]
        present, wanted = rows_of(self._present), rows_of(self._wanted)
        own = sum((weight * ((wanted if near else present) > 0) for weight, near in self._own), start=0 * present)
        found += [own - self._wishes, *(wanted for single in self._single if single)]
        if self._strategy is Strategy.SPREAD:
            return [*found, present, self._load]
        return [*found, -self._fullnesses(), -self._load]

    def after(self, score: Score, taken: int) -> Score:
        """The score of the same node after one more task."""
        if self.is_level:
            return (*score[:-3], score[-3] + 1, score[-2] + self._step, score[-1])
        return self.of(score[-1], taken)

    def words(self, row: int) -> list[str]:
        """What speaks for or against a node, in the order in which it counts; what is 0 everywhere is left out."""
        score = self.of(row, 0)
        said = [f"{score[0]} recent failure{'s' if score[0] != 1 else ''}"] if score[0] else []
        said += [_taints_in_words(score[1])] if score[1] else []
        said += [f"wishes {-score[2]:+d}"] if score[2] or self._wishes.any() or self._own else []
        for by, _ in self._ask.spread:
            counts = neighbourhood.counts(self._fleet, by, self._wanted)
            column = self._fleet.column(by)
            said.append(f"{counts[int(column.codes[row])]} of its tasks in {by} {column.value(row) or 'none'}")
        load = int(self._fleet.load[row])
        others = f"{load} task{'s' if load != 1 else ''} there"
        if self._strategy is Strategy.BINPACK:
            return [*said, f"{-score[-3] / 10:.1f}% full with it", others, *self.fetches(row)]
        return [*said, f"{self._present[row]} of its tasks there", others, *self.fetches(row)]

    def fetches(self, row: int) -> list[str]:
        """What the node has to fetch, where that sets nodes apart."""
        return [self._lacking.words(row)] if self._lacking is not None else []

    def _last(self, row: int, present: int, taken: int) -> tuple[int, int]:
        load = int(self._load[row]) + self._step * taken
        if self._strategy is Strategy.SPREAD:
            return present, load
        return -max(int(part[row]) for part in self._parts(taken + 1)), -load

    def _fullnesses(self) -> fleets.Amounts:
        return np.maximum(*self._parts(1))

    def _parts(self, taken: int) -> tuple[fleets.Amounts, fleets.Amounts]:
        """Which parts of processors and memory are reserved after so many tasks, in thousandths."""
        fleet, demand = self._fleet, self._ask.demand
        cpu = (fleet.has_cpu - fleet.free_cpu + demand.cpu * taken) * 1000 // np.maximum(fleet.has_cpu, 1)
        memory = fleet.has_memory - fleet.free_memory + demand.memory * taken
        return cpu, memory // np.maximum(fleet.has_memory // 1000, 1)


def _weighed(load: fleets.Amounts, lacking: locality.Lacking | None, strategy: Strategy) -> tuple[fleets.Amounts, int]:
    """The tasks on the nodes, made worse by what there is to fetch, and how much one task more adds.

    Example, to spread: 3 tasks, and half a task's worth to fetch → 7, and 2 more for each task. When nobody lacks
    anything, 3 tasks are 3, and each further one is 1.
    """
    if lacking is None:
        return load, 1
    return 2 * load + (lacking.halves if strategy is Strategy.SPREAD else -lacking.halves), 2


def alone(ask: Ask) -> bool:
    """No node takes two of its tasks, since they have to be apart by node."""
    return any(not one.weight and one.service == ask.service and one.by in placement.ONE_NODE for one in ask.apart)


def _taints_in_words(count: int) -> str:
    return f"{count} taints that ask to be avoided" if count != 1 else "1 taint that asks to be avoided"


def _avoided(node: pb.Node, ask: Ask) -> int:
    return sum(
        taints.effect_of(taint) == pb.TAINT_EFFECT_PREFER_NO_SCHEDULE and not asking.stands(ask.tolerations, taint)
        for taint in node.spec.taints
    )


def _wishes(fleet: fleets.Fleet, ask: Ask) -> fleets.Amounts:
    """The weights of what each node fulfils, but for what its own tasks have to do with each other."""
    total = np.zeros(len(fleet.nodes), dtype=np.int64)
    for constraint, weight in ask.preferences:
        column = fleet.column(constraint.attribute)
        total += weight * column.where({value: constraint.fulfilled(value) for value in (*column.values, None)})
    for near, affinities in ((True, ask.near), (False, ask.apart)):
        for one in affinities:
            if one.weight and one.service != ask.service:
                others = fleet.neighbours((ask.namespace, one.service))
                there = neighbourhood.values_with(fleet, one.by, others.wanted if near else others.present)
                total += (one.weight if near else -one.weight) * neighbourhood.with_value(fleet, one.by, there)
    return total

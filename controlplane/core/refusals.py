"""Why no node takes a task: what every filter says of all nodes, and how that is told.

The rule: what is told has a bound, however many nodes there are. Nodes share a reason when their words are the same;
beyond the most frequent ones only the number of nodes is told.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from controlplane.core import filters
from controlplane.core import fleet as fleets
from controlplane.core.ask import Ask
from controlplane.core.neighbourhood import Words
from protos.orch.v1 import objects_pb2 as pb

MAX_EXAMPLES = 3
MAX_REASONS = 10
OTHER_REASONS = "other reasons, which `orchctl why` tells node by node"

_Reason = tuple[str, str]
"""The name of a filter and its words."""


class Look:
    """What each filter says of all nodes about one ask, asked once. What is booked afterwards is not seen."""

    def __init__(self, fleet: fleets.Fleet, ask: Ask) -> None:
        self._fleet, self._ask = fleet, ask
        self._masks = {one.name: one.passes(fleet, ask) for one in filters.FILTERS}
        self._details: dict[str, Words] = {}

    def at(self, row: int) -> Iterator[_Reason]:
        """Every filter, and why it refuses the node of this row; empty words when it does not."""
        for one in filters.FILTERS:
            yield one.name, "" if self._masks[one.name][row] else self._detail(one, row)

    def refusals(self, rows: Sequence[int] | None = None) -> list[pb.Refusal]:
        """Why no node (or none of `rows`) takes it: reasons with the number of nodes, most frequent first."""
        nodes: dict[_Reason, list[int]] = {}
        undecided = filters.everywhere(self._fleet)
        if rows is not None:
            undecided[:] = False
            undecided[list(rows)] = True
        for one in filters.FILTERS:
            refused = undecided & ~self._masks[one.name]
            undecided &= ~refused
            for row in np.flatnonzero(refused).tolist():
                nodes.setdefault((one.name, self._detail(one, row)), []).append(row)
        return self._bounded(nodes)

    def _detail(self, one: filters.Filter, row: int) -> str:
        if one.name not in self._details:
            self._details[one.name] = one.details(self._fleet, self._ask)
        return self._details[one.name](row)

    def _bounded(self, nodes: Mapping[_Reason, list[int]]) -> list[pb.Refusal]:
        """The most frequent reasons, one of each filter before any second one, and the others as one."""
        ordered = sorted(nodes, key=lambda reason: (-len(nodes[reason]), reason))
        firsts: dict[str, _Reason] = {}
        for reason in ordered:
            firsts.setdefault(reason[0], reason)
        by_rank = [*firsts.values(), *(reason for reason in ordered if firsts[reason[0]] != reason)]
        told, left = set(by_rank[:MAX_REASONS]), by_rank[MAX_REASONS:]
        made = [self._refusal(*reason, nodes[reason]) for reason in ordered if reason in told]
        if left:
            others = sorted(row for reason in left for row in nodes[reason])
            made.append(self._refusal(left[0][0], OTHER_REASONS, others))
        return made

    def _refusal(self, name: str, detail: str, rows: Sequence[int]) -> pb.Refusal:
        examples = [self._fleet.nodes[row].meta.name for row in rows[:MAX_EXAMPLES]]
        return pb.Refusal(filter=name, detail=detail, nodes=len(rows), examples=examples)


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

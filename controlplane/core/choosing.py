"""Chooses a node for one task of a group after another, without looking at all nodes again each time.

The naive way filters and compares all nodes for each task. It is right, and costs nodes × tasks. Here nodes are sorted
into cells: those that have the same values of whatever the group is spread over, near to or apart from itself by.
Inside a cell only the node that was taken changes its score, so a heap keeps the order; a cell's own share in the score
is the same for all of its nodes. Example: `spread` over three zones → three heaps, and each task compares three heads.

The rule: it answers exactly as the naive way would (a test compares them), as long as nobody else books meanwhile.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import add

import numpy as np

from controlplane.core import filters, neighbourhood
from controlplane.core import fleet as fleets
from controlplane.core import scoring as scores
from controlplane.core.ask import Ask
from manifests import placement

Score = scores.Score


class _Kind(Enum):
    SPREAD = "spread"
    NEAR = "near"
    APART = "apart"


@dataclass(slots=True, kw_only=True)
class _Tie:
    """What ties the group's tasks to each other by one attribute. `counts`: its tasks at each value, and last at none.
    `limit`: the greatest skew. `place`: where a spread stands in the score.
    """

    kind: _Kind
    by: str
    codes: Sequence[int]
    counts: list[int]
    hard: bool
    limit: int = 0
    weight: int = 0
    place: int = 0
    among: frozenset[int] = frozenset()
    least: int = 0

    def is_open(self, code: int) -> bool:
        """Whether a node with this value may take one more."""
        if not self.hard:
            return True
        match self.kind:
            case _Kind.SPREAD:
                return code >= 0 and self.counts[code] + 1 - self.least <= self.limit
            case _Kind.NEAR:
                return not any(self.counts) or (code >= 0 and self.counts[code] > 0)
            case _Kind.APART:
                return code < 0 or not self.counts[code]

    def add_to(self, offset: list[int], code: int) -> None:
        """What a value adds to the score of its nodes."""
        if self.kind is _Kind.SPREAD:
            offset[self.place] += self.counts[code]
        elif self.weight and code >= 0 and self.counts[code]:
            offset[scores.WISHES] += -self.weight if self.kind is _Kind.NEAR else self.weight

    def take(self, row: int) -> bool:
        """Counts one more on a node; whether the emptiest part has more now than before."""
        code = self.codes[row]
        self.counts[code] += 1
        if self.kind is not _Kind.SPREAD or self.counts[code] != self.least + 1 or code not in self.among:
            return False
        least = neighbourhood.least_of(self.counts, self.among)
        risen, self.least = least > self.least, least
        return risen


class Chooser:
    """For one group. `best` and `on` book what they choose here; the fleet hears of it by `taken`."""

    def __init__(self, fleet: fleets.Fleet, ask: Ask, failures: Mapping[int, int], strategy: scores.Strategy) -> None:
        self.taken: dict[int, int] = {}
        """Tasks that were given to each row."""
        self._fleet, self._ask = fleet, ask
        self._scoring = scores.Scoring(fleet, ask, failures, strategy)
        eligible = filters.eligible(fleet, ask)
        mask = eligible & _far_from_others(fleet, ask)
        self._ties = list(_ties(fleet, ask, eligible))
        room = np.where(mask, filters.room(fleet, ask), 0)
        if scores.alone(ask):
            present = fleet.rows_of(fleet.neighbours(ask.key).present)
            room = np.minimum(room, np.where(present > 0, 0, 1))
        self._room: list[int] = room.tolist()
        self._cells: dict[tuple[int, ...], list[Score]] | None = None
        self._order: list[tuple[Score, tuple[int, ...]]] = []
        self._parked: list[tuple[int, ...]] = []
        self._alike = len({tie.by for tie in self._ties}) <= 1

    def on(self, row: int) -> bool:
        """Whether this node takes one more; then it is booked."""
        cell = self._cell_of(row)
        if self._room[row] <= 0 or not self._is_open(cell):
            return False
        self._take(row)
        return True

    def best(self) -> int | None:
        """The best node that takes one more, which is booked; None when there is none."""
        cells = self._sorted_cells()
        if not self._ties:
            return self._take_head(cells[()]) if () in cells else None
        return self._best_in_order(cells) if self._alike else self._best_of_all(cells)

    def ranking(self) -> list[int]:
        """All nodes that would take a task now, the best first."""
        open_rows = [row for row, room in enumerate(self._room) if room > 0 and self._is_open(self._cell_of(row))]
        return sorted(open_rows, key=lambda row: self._full(self._cell_of(row), self._scoring.of(row, 0)))

    # Cells ------------------------------------------------------------------------------------------------------------

    def _cell_of(self, row: int) -> tuple[int, ...]:
        return tuple(tie.codes[row] for tie in self._ties)

    def _sorted_cells(self) -> dict[tuple[int, ...], list[Score]]:
        if self._cells is None:
            self._cells = {}
            for row, room in enumerate(self._room):
                if room > 0:
                    score = self._scoring.of(row, self.taken.get(row, 0))
                    self._cells.setdefault(self._cell_of(row), []).append(score)
            for cell in self._cells.values():
                heapq.heapify(cell)
            self._order = [(self._full(cell, heap[0]), cell) for cell, heap in self._cells.items()]
            heapq.heapify(self._order)
        return self._cells

    def _is_open(self, cell: tuple[int, ...]) -> bool:
        return all(tie.is_open(code) for tie, code in zip(self._ties, cell, strict=True))

    def _full(self, cell: tuple[int, ...], score: Score) -> Score:
        """The score with the cell's share."""
        offset = [0] * len(score)
        for tie, code in zip(self._ties, cell, strict=True):
            tie.add_to(offset, code)
        return tuple(map(add, score, offset))

    def _best_of_all(self, cells: dict[tuple[int, ...], list[Score]]) -> int | None:
        """Compares the heads of all cells: several attributes tie cells to each other in many ways."""
        chosen, lowest = None, None
        for cell, heap in cells.items():
            self._drop_full(heap)
            if heap and self._is_open(cell):
                full = self._full(cell, heap[0])
                if lowest is None or full < lowest:
                    chosen, lowest = heap, full
        return self._take_head(chosen) if chosen is not None else None

    def _best_in_order(self, cells: dict[tuple[int, ...], list[Score]]) -> int | None:
        """With one attribute a task changes the score of its own cell alone, so the cells stand in a heap themselves.

        Cells that are closed are set aside until the emptiest part has got a task: nothing else opens them again.
        """
        while self._order:
            _, cell = heapq.heappop(self._order)
            heap = cells[cell]
            self._drop_full(heap)
            if not heap:
                continue
            if not self._is_open(cell):
                self._parked.append(cell)
                continue
            row = self._take_head(heap)
            again = [cell, *self._parked] if self._opened else [cell]
            if self._opened:
                self._parked = []
            for one in again:
                if cells[one]:
                    heapq.heappush(self._order, (self._full(one, cells[one][0]), one))
            return row
        return None

    def _drop_full(self, heap: list[Score]) -> None:
        while heap and self._room[heap[0][-1]] <= 0:
            heapq.heappop(heap)

    def _take_head(self, heap: list[Score]) -> int | None:
        self._drop_full(heap)
        if not heap:
            return None
        row = heap[0][-1]
        self._take(row)
        if self._room[row] > 0:
            heapq.heapreplace(heap, self._scoring.after(heap[0], self.taken[row]))
        else:
            heapq.heappop(heap)
        return row

    _opened = False

    def _take(self, row: int) -> None:
        self._room[row] -= 1
        self.taken[row] = self.taken.get(row, 0) + 1
        self._opened = False
        for tie in self._ties:
            if tie.take(row):
                self._opened = True


def _far_from_others(fleet: fleets.Fleet, ask: Ask) -> fleets.Mask:
    """Near to and apart from other services, as it has to be; those do not change while this group is placed."""
    mask = filters.everywhere(fleet)
    for one in ask.near:
        if not one.weight and one.service != ask.service:
            rows = neighbourhood.company(fleet, ask, one)
            mask &= neighbourhood.with_value(fleet, one.by, neighbourhood.values_with(fleet, one.by, rows))
    for (_, other), by, rows in _others_unwanted(fleet, ask):
        assert other, "a service has a name"
        mask &= ~neighbourhood.with_value(fleet, by, neighbourhood.values_with(fleet, by, rows))
    return mask


def _others_unwanted(fleet: fleets.Fleet, ask: Ask) -> Iterator[tuple[tuple[str, str], str, Mapping[int, int]]]:
    """Who repels it (an older revision of itself may, too), and the others that it has to be apart from."""
    yield from fleet.repellers.get(ask.key, ())
    for one in ask.apart:
        if not one.weight and one.service != ask.service:
            key = (ask.namespace, one.service)
            yield key, one.by, fleet.neighbours(key).present


def _ties(fleet: fleets.Fleet, ask: Ask, eligible: fleets.Mask) -> Iterable[_Tie]:
    """What ties its tasks to each other, but for what the score of a single node shows."""
    mine = fleet.neighbours(ask.key)
    for place, (by, skew) in enumerate(ask.spread, start=scores.SPREADS):
        if skew or by not in placement.ONE_NODE:
            counts = neighbourhood.counts(fleet, by, mine.wanted)
            among = neighbourhood.parts(fleet, by, eligible)
            yield _Tie(
                kind=_Kind.SPREAD,
                by=by,
                codes=fleet.column(by).codes.tolist(),
                counts=counts,
                hard=skew > 0,
                limit=skew,
                place=place,
                among=among,
                least=neighbourhood.least_of(counts, among),
            )
    for kind, affinities, rows in ((_Kind.NEAR, ask.near, mine.wanted), (_Kind.APART, ask.apart, mine.present)):
        for one in affinities:
            single = one.by in placement.ONE_NODE and (kind is _Kind.APART or one.weight)
            if one.service == ask.service and not single:
                yield _Tie(
                    kind=kind,
                    by=one.by,
                    codes=fleet.column(one.by).codes.tolist(),
                    counts=neighbourhood.counts(fleet, one.by, rows),
                    hard=not one.weight,
                    weight=one.weight,
                )

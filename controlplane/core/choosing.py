"""Chooses a node for one task of a group after another, without looking at all nodes again each time.

The naive way filters and compares all nodes for each task. It is right, and costs nodes × tasks. Here nodes are sorted
into cells: those that have the same values of whatever the group is spread over, near to or apart from itself by.
Inside a cell only the node that was taken changes its score, so its nodes are sorted once, and a heap keeps those that
have been taken; a cell's own share in the score is the same for all of its nodes. Example: `spread` over three zones →
three cells, and each task compares three heads. Where nothing ties the tasks to each other, and each of them makes its
node worse by as much as on any other, even that is done for all tasks at once (`levelling`).

The rule: it answers exactly as the naive way would (a test compares them), as long as nobody else books meanwhile.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from operator import add

import numpy as np

from controlplane.core import filters, levelling, neighbourhood
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
    codes: fleets.Amounts
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
        code = int(self.codes[row])
        self.counts[code] += 1
        if self.kind is not _Kind.SPREAD or self.counts[code] != self.least + 1 or code not in self.among:
            return False
        least = neighbourhood.least_of(self.counts, self.among)
        risen, self.least = least > self.least, least
        return risen


@dataclass(slots=True, kw_only=True)
class _Cell:
    """Nodes that differ in nothing that ties the group's tasks to each other."""

    rows: list[int]
    """By their scores before any of them was taken; those before `at` have been."""
    at: int = 0
    heap: list[Score] = field(default_factory=list)
    """The nodes that were taken and have room, and the next of the others when `has_next`."""
    has_next: bool = False


class Chooser:
    """For one group. `best` and `on` book what they choose here; the fleet hears of it by `taken`.

    It is asked once for the best nodes, or about nodes one by one.
    """

    def __init__(self, fleet: fleets.Fleet, ask: Ask, failures: Mapping[int, int], strategy: scores.Strategy) -> None:
        self.taken: dict[int, int] = {}
        """Tasks that were given to each row."""
        self._scoring = scores.Scoring(fleet, ask, failures, strategy)
        eligible = filters.eligible(fleet, ask)
        # Others do not change while this group is placed; what ties its own tasks to each other follows.
        mask = eligible & neighbourhood.near_enough(fleet, ask, own=False)
        mask &= neighbourhood.apart_enough(fleet, ask, own=False)
        self._ties = list(_ties(fleet, ask, eligible))
        room = np.where(mask, filters.room(fleet, ask), 0)
        if scores.alone(ask):
            present = fleet.rows_of(fleet.neighbours(ask.key).present)
            room = np.minimum(room, np.where(present > 0, 0, 1))
        self._room = room
        self._cells: dict[tuple[int, ...], _Cell] | None = None
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

    def best(self, count: int) -> list[int]:
        """The best node for each of `count` tasks, one after another, and booked; fewer when no node takes more."""
        assert not self.taken, "asked before"
        if self._scoring.is_level and not self._ties:
            return self._levelled(count)
        found: list[int] = []
        while len(found) < count and (row := self._next()) is not None:
            found.append(row)
        return found

    def ranking(self) -> list[int]:
        """All nodes that would take a task now, the best first."""
        rows = [row for row in np.flatnonzero(self._room > 0).tolist() if self._is_open(self._cell_of(row))]
        return sorted(rows, key=lambda row: self._full(self._cell_of(row), self._scoring.of(row, 0)))

    def _levelled(self, count: int) -> list[int]:
        # Each task follows fewer than `count` others, so that one of the first `count` nodes is still untouched.
        rows = self._scoring.in_order(np.flatnonzero(self._room > 0))[:count]
        chosen = levelling.fill(self._scoring.levels(rows), self._room[rows], count)
        found: list[int] = chosen.tolist()
        self.taken = Counter(found)
        return found

    def _next(self) -> int | None:
        cells = self._sorted_cells()
        if not self._ties:
            return self._take_head(cells[()]) if () in cells else None
        return self._best_in_order(cells) if self._alike else self._best_of_all(cells)

    # Cells ------------------------------------------------------------------------------------------------------------

    def _cell_of(self, row: int) -> tuple[int, ...]:
        return tuple(int(tie.codes[row]) for tie in self._ties)

    def _sorted_cells(self) -> dict[tuple[int, ...], _Cell]:
        if self._cells is None:
            rows = self._scoring.in_order(np.flatnonzero(self._room > 0))
            self._cells = {self._cell_of(part[0]): _Cell(rows=part) for part in self._split(rows)}
            if self._ties and self._alike:
                self._order = [
                    (self._full(name, head), name) for name, cell in self._cells.items() if (head := self._head(cell))
                ]
                heapq.heapify(self._order)
        return self._cells

    def _split(self, rows: fleets.Amounts) -> list[list[int]]:
        """The rows of each cell, in their order."""
        if not self._ties or not rows.size:
            return [rows.tolist()] if rows.size else []
        codes = np.stack([tie.codes[rows] for tie in self._ties])
        by_cell = np.lexsort(codes)
        borders = np.flatnonzero((codes[:, by_cell[1:]] != codes[:, by_cell[:-1]]).any(axis=0)) + 1
        return [part.tolist() for part in np.split(rows[by_cell], borders)]

    def _head(self, cell: _Cell) -> Score | None:
        """The best score in a cell of a node with room."""
        while True:
            if not cell.has_next and cell.at < len(cell.rows):
                heapq.heappush(cell.heap, self._scoring.of(cell.rows[cell.at], self.taken.get(cell.rows[cell.at], 0)))
                cell.has_next = True
            if not cell.heap:
                return None
            if self._room[cell.heap[0][-1]] > 0:
                return cell.heap[0]
            self._pass_on(cell, heapq.heappop(cell.heap)[-1])

    def _pass_on(self, cell: _Cell, row: int) -> None:
        """The head was taken or is full: if it was the next of those that are untouched, another follows."""
        if cell.has_next and cell.rows[cell.at] == row:
            cell.at += 1
            cell.has_next = False

    def _is_open(self, cell: tuple[int, ...]) -> bool:
        return all(tie.is_open(code) for tie, code in zip(self._ties, cell, strict=True))

    def _full(self, cell: tuple[int, ...], score: Score) -> Score:
        """The score with the cell's share."""
        offset = [0] * len(score)
        for tie, code in zip(self._ties, cell, strict=True):
            tie.add_to(offset, code)
        return tuple(map(add, score, offset))

    def _best_of_all(self, cells: dict[tuple[int, ...], _Cell]) -> int | None:
        """Compares the heads of all cells: several attributes tie cells to each other in many ways."""
        chosen, lowest = None, None
        for name, cell in cells.items():
            head = self._head(cell)
            if head is not None and self._is_open(name):
                full = self._full(name, head)
                if lowest is None or full < lowest:
                    chosen, lowest = cell, full
        return self._take_head(chosen) if chosen is not None else None

    def _best_in_order(self, cells: dict[tuple[int, ...], _Cell]) -> int | None:
        """With one attribute a task changes the score of its own cell alone, so the cells stand in a heap themselves.

        Cells that are closed are set aside until the emptiest part has got a task: nothing else opens them again.
        """
        while self._order:
            _, name = heapq.heappop(self._order)
            if self._head(cells[name]) is None:
                continue
            if not self._is_open(name):
                self._parked.append(name)
                continue
            row = self._take_head(cells[name])
            again = [name, *self._parked] if self._opened else [name]
            if self._opened:
                self._parked = []
            for one in again:
                if (head := self._head(cells[one])) is not None:
                    heapq.heappush(self._order, (self._full(one, head), one))
            return row
        return None

    def _take_head(self, cell: _Cell) -> int | None:
        head = self._head(cell)
        if head is None:
            return None
        row = head[-1]
        self._take(row)
        self._pass_on(cell, row)
        if self._room[row] > 0:
            heapq.heapreplace(cell.heap, self._scoring.after(head, self.taken[row]))
        else:
            heapq.heappop(cell.heap)
        return row

    _opened = False

    def _take(self, row: int) -> None:
        self._room[row] -= 1
        self.taken[row] = self.taken.get(row, 0) + 1
        self._opened = False
        for tie in self._ties:
            if tie.take(row):
                self._opened = True


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
                codes=fleet.column(by).codes,
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
                    codes=fleet.column(one.by).codes,
                    counts=neighbourhood.counts(fleet, one.by, rows),
                    hard=not one.weight,
                    weight=one.weight,
                )

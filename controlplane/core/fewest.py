"""Finds the fewest of some things that are enough together, without trying every choice.

Three rules. What is enough stays so with more of them. Those that come first are taken first. And one choice is as good
as another when it has as many of each kind, so it is tried once. Example: of 60 equal tasks, four of which have to go,
no single one and no pair is tried, and about ten times it is asked what is enough.
"""

import bisect
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

COMPARED = 64
"""Things, those of one kind counted once or twice, among which every pair is tried."""

T = TypeVar("T")


def find(
    pool: Sequence[T],
    together: Sequence[T],
    *,
    kind_of: Callable[[T], Hashable],
    may_do: Callable[[int], bool],
    is_enough: Callable[[Sequence[T]], bool],
) -> Sequence[T] | None:
    """One or two when they are enough; else as many in order as it takes, without those that are not needed; None when
    there are not enough. `together`: those of the pool that may be taken all at once. `may_do`: whether any choice of
    so many could be enough.

    Exact up to two. Beyond that a smaller choice may exist: to look for it costs more than it is worth.
    """
    for size in (1, 2):
        if may_do(size):
            for chosen in _differing(pool, size, kind_of):
                if is_enough(chosen):
                    return chosen
    return _as_many_as_it_takes(together, is_enough)


def _differing(pool: Sequence[T], size: int, kind_of: Callable[[T], Hashable]) -> Iterator[Sequence[T]]:
    """Every choice of so many but for those that have as many of each kind as an earlier one, in order."""
    numbers, few = Counter[Hashable](), list[tuple[Hashable, T]]()
    for one in pool:
        kind = kind_of(one)
        numbers[kind] += 1
        if numbers[kind] <= size:
            few.append((kind, one))
    if size > 1 and len(few) > COMPARED:
        return
    seen = set[frozenset[tuple[Hashable, int]]]()
    for chosen in itertools.combinations(few, size):
        kinds = frozenset(Counter(kind for kind, _ in chosen).items())
        if kinds not in seen:
            seen.add(kinds)
            yield [one for _, one in chosen]


def _as_many_as_it_takes(pool: Sequence[T], is_enough: Callable[[Sequence[T]], bool]) -> Sequence[T] | None:
    if not is_enough(pool):
        return None
    number = bisect.bisect_left(range(len(pool)), True, key=lambda number: is_enough(pool[:number]))
    chosen = list(pool[:number])
    for one in reversed(chosen.copy()):  # the last of them is spared first
        spared = [other for other in chosen if other is not one]
        if is_enough(spared):
            chosen = spared
    return chosen

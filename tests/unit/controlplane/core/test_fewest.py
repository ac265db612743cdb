"""The fewest that are enough: exact up to two, never one too many, and found without trying everything."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import fewest


class Weight:
    """Something of a size, that is not the same as another one of that size."""

    def __init__(self, size: int) -> None:
        self.size = size


def total(chosen: Sequence[Weight]) -> int:
    return sum(one.size for one in chosen)


def find(pool: Sequence[Weight], needed: int) -> tuple[Sequence[Weight] | None, int]:
    """What is found, and how many choices were looked at."""
    looks = 0

    def is_enough(chosen: Sequence[Weight]) -> bool:
        nonlocal looks
        looks += 1
        return total(chosen) >= needed

    most = sorted((one.size for one in pool), reverse=True)
    found = fewest.find(
        pool,
        pool,
        kind_of=lambda one: one.size,
        may_do=lambda size: sum(most[:size]) >= needed,
        is_enough=is_enough,
    )
    return found, looks


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 30))
def test_one_or_two_are_the_first_that_are_enough(sizes: list[int], needed: int) -> None:
    """As if every choice had been tried in order."""
    pool = [Weight(size) for size in sizes]
    found, _ = find(pool, needed)
    choices = itertools.chain.from_iterable(itertools.combinations(pool, size) for size in (1, 2))
    first = next((choice for choice in choices if total(choice) >= needed), None)
    if first is not None:
        assert found is not None
        assert list(found) == list(first)
    else:
        assert found is None or len(found) > 2


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 60))
def test_what_is_found_is_enough_and_nothing_of_it_can_be_left_out(sizes: list[int], needed: int) -> None:
    """And nothing is found only when all of them are not enough."""
    pool = [Weight(size) for size in sizes]
    found, _ = find(pool, needed)
    if found is None:
        assert total(pool) < needed
    else:
        assert total(found) >= needed
        assert all(total(found) - one.size < needed for one in found)


def test_those_that_are_alike_are_tried_once() -> None:
    """Of 1000 equal ones, four are found in some twenty looks; two, by the first pair."""
    found, looks = find([Weight(50) for _ in range(1000)], 200)
    assert found is not None
    assert len(found) == 4
    assert looks < 20
    found, looks = find([Weight(50) for _ in range(1000)], 100)
    assert (found is not None and len(found), looks) == (2, 1)


def test_pairs_of_very_many_kinds_are_not_tried() -> None:
    """Then what is found may be more than two, and it is found soon."""
    found, looks = find([Weight(size) for size in range(1, 201)], 399)
    assert found is not None
    assert total(found) >= 399
    assert looks < 250

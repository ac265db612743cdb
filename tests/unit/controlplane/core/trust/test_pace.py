"""How fast the door lets knock."""

import itertools

import hypothesis
from hypothesis import strategies as st

from controlplane.core.trust.pace import Pace


def test_the_example_of_the_docstring() -> None:
    """20 at once, and then one every 100 ms."""
    pace = Pace(burst=20, per_second=10)
    assert [pace.take(0) for _ in range(21)] == [True] * 20 + [False]
    assert [pace.take(now) for now in (99, 100, 101, 200)] == [False, True, False, True]


@hypothesis.given(moments=st.lists(st.integers(0, 60_000), max_size=300))
def test_no_more_than_the_burst_and_the_rate_whatever_the_clock_does(moments: list[int]) -> None:
    """Also when it is set back and forth: what a jump back took is not given twice."""
    pace = Pace(burst=5, per_second=2)
    taken = sum(pace.take(moment) for moment in moments)
    forward_ms = sum(max(0, after - before) for before, after in itertools.pairwise(moments))
    assert taken <= 5 + 2 * forward_ms / 1000 + 1e-6

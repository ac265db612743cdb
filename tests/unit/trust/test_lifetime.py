"""When certificates are renewed, and what is wrong with a clock."""

import hypothesis
import pytest
from hypothesis import strategies as st

from trust.core import lifetime

HOUR_MS = 3_600_000


def test_the_example_of_the_formula() -> None:
    """Valid from day 0 to day 90, chance 0.5: day 58.5."""
    assert lifetime.renewal_moment(0, 90 * lifetime.DAY_MS, 0.5) == int(58.5 * lifetime.DAY_MS)


@hypothesis.given(start=st.integers(0, 2**41), length=st.integers(1, 2**40), chance=st.floats(0, 1))
def test_a_certificate_is_renewed_between_half_and_four_fifths_of_its_life(
    start: int, length: int, chance: float
) -> None:
    """Never sooner, never later."""
    part = (lifetime.renewal_moment(start, start + length, chance) - start) / length
    assert 0.5 - 2 / length <= part <= 0.8 + 2 / length


@pytest.mark.parametrize(
    ("difference_ms", "said"),
    [
        (0, ""),
        (lifetime.MAX_CLOCK_DIFFERENCE_MS, ""),
        (-lifetime.MAX_CLOCK_DIFFERENCE_MS, ""),
        (7 * 60_000, "7 min ahead of"),
        (-3 * HOUR_MS - 20 * 60_000, "3 h 20 min behind"),
        (-400 * 24 * HOUR_MS, "400 days behind"),
    ],
)
def test_a_wrong_clock_is_told_with_how_wrong_it_is(difference_ms: int, said: str) -> None:
    """A few minutes are let pass: certificates are backdated by as much."""
    problem = lifetime.clock_problem(difference_ms, 0)
    assert said in problem
    assert bool(problem) is bool(said)

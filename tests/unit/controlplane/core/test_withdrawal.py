"""A task that is to stop is let go when every node has heard of it, and not much later in any case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import withdrawal
from controlplane.core.withdrawal import BOUND_MS, Leaving

NOW_MS = 10_000


@pytest.mark.parametrize(
    ("unlisted", "since_ms", "applied", "withdrawn", "look_again_ms"),
    [
        (7, NOW_MS, {"n1": 7, "n2": 8}, True, None),
        (7, NOW_MS, {"n1": 7, "n2": 6}, False, NOW_MS + BOUND_MS),
        (7, NOW_MS - BOUND_MS, {"n1": 7, "n2": 6}, True, None),
        (7, NOW_MS - BOUND_MS + 1, {"n1": 7, "n2": 6}, False, NOW_MS + 1),
        (7, NOW_MS, {"n1": 0}, False, NOW_MS + BOUND_MS),
        (7, NOW_MS, {}, True, None),
        (0, NOW_MS, {"n1": 0}, True, None),
    ],
    ids=[
        "everybody knows",
        "one does not know",
        "nobody is waited for longer than the bound",
        "up to the bound",
        "a node that has just come has applied nothing",
        "nobody is there who could send something",
        "it never was ready",
    ],
)
def test_when_a_task_is_withdrawn(
    unlisted: int, since_ms: int, applied: dict[str, int], withdrawn: bool, look_again_ms: int | None
) -> None:
    leaving = Leaving(task_id="web-1", unlisted=unlisted, since_ms=since_ms)
    decision = withdrawal.decide([leaving], applied, NOW_MS)
    assert decision.withdrawn == (frozenset({"web-1"}) if withdrawn else frozenset())
    assert decision.look_again_ms == look_again_ms


def test_a_node_that_is_away_is_waited_for_by_its_own_tasks_only() -> None:
    """It may be back in a moment, and still send where it was told to last."""
    both = [Leaving(task_id=name, unlisted=7, since_ms=NOW_MS) for name in ("here-1", "away-1")]
    decision = withdrawal.decide(both, {"n1": 7}, NOW_MS, away=frozenset({"away-1"}))
    assert decision.withdrawn == {"here-1"}
    assert decision.look_again_ms == NOW_MS + BOUND_MS
    later = withdrawal.decide(both, {"n1": 7}, NOW_MS + BOUND_MS, away=frozenset({"away-1"}))
    assert later.withdrawn == {"here-1", "away-1"}


LEAVING = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2 * BOUND_MS)), max_size=6).map(
    lambda rows: [Leaving(task_id=f"t{n}", unlisted=row[0], since_ms=row[1]) for n, row in enumerate(rows)]
)
APPLIED = st.dictionaries(st.sampled_from(["n1", "n2", "n3"]), st.integers(0, 5))


@given(leaving=LEAVING, applied=APPLIED, now_ms=st.integers(0, 3 * BOUND_MS))
def test_no_node_that_is_waited_for_still_sends_to_a_withdrawn_task(
    leaving: list[Leaving], applied: dict[str, int], now_ms: int
) -> None:
    decision = withdrawal.decide(leaving, applied, now_ms)
    for one in leaving:
        if one.task_id in decision.withdrawn and now_ms < one.since_ms + BOUND_MS:
            assert all(number >= one.unlisted for number in applied.values())


@given(leaving=LEAVING, applied=APPLIED, now_ms=st.integers(0, 3 * BOUND_MS))
def test_every_task_is_withdrawn_in_the_end(leaving: list[Leaving], applied: dict[str, int], now_ms: int) -> None:
    """Whoever looks again when it was told to needs to look no more than once a task."""
    for _ in range(len(leaving) + 1):
        decision = withdrawal.decide(leaving, applied, now_ms)
        leaving = [one for one in leaving if one.task_id not in decision.withdrawn]
        if decision.look_again_ms is None:
            break
        assert decision.look_again_ms > now_ms
        now_ms = decision.look_again_ms
    assert not leaving


@pytest.mark.parametrize(
    ("away_for_ms", "withdrawn", "look_again_ms"),
    [(0, False, NOW_MS + BOUND_MS), (2_000, False, NOW_MS + 1_000), (BOUND_MS, True, None), (60_000, True, None)],
)
def test_a_node_that_was_lost_is_waited_for_for_a_while(
    away_for_ms: int, *, withdrawn: bool, look_again_ms: int | None
) -> None:
    """Counted from its loss, not anew for each task that is to stop: its agent is back soon, or it is dead."""
    leaving = Leaving(task_id="web-1", unlisted=7, since_ms=NOW_MS)
    decision = withdrawal.decide([leaving], {"n1": 8, "n2": 0}, NOW_MS, {"n2": NOW_MS - away_for_ms, "gone": 0})
    assert decision.withdrawn == (frozenset({"web-1"}) if withdrawn else frozenset())
    assert decision.look_again_ms == look_again_ms
    busy = withdrawal.decide([leaving], {"n1": 6, "n2": 0}, NOW_MS, {"n2": 0})
    assert not busy.withdrawn, "of the others each is waited for as ever"

"""Each client has a bucket of its own, filled at a steady rate: in virtual time."""

from hypothesis import given
from hypothesis import strategies as st

from agent.core.dns.budget import Budget


def served(budget: Budget, client: str, count: int, now: float) -> int:
    """How many of so many questions at once are answered."""
    return sum(budget.spend(client, now) == 0 for _ in range(count))


def test_a_burst_and_then_a_rate() -> None:
    budget = Budget(rate=10, burst=20)
    assert served(budget, "a", 100, 0.0) == 20
    assert served(budget, "a", 100, 0.5) == 5
    assert served(budget, "a", 100, 1_000.0) == 20


def test_one_client_takes_nothing_from_another() -> None:
    budget = Budget(rate=10, burst=20)
    served(budget, "loud", 10_000, 0.0)
    assert served(budget, "quiet", 20, 0.0) == 20


def test_how_long_to_wait() -> None:
    """And not a moment longer: whoever waits so long is served."""
    budget = Budget(rate=4, burst=1)
    assert budget.spend("a", 7.0) == 0
    assert budget.spend("a", 7.0) == 0.25
    assert budget.spend("a", 7.125) == 0.125
    assert budget.spend("a", 7.25) == 0


def test_refusals_are_counted_by_client() -> None:
    budget = Budget(rate=10, burst=20)
    assert [budget.refuse("a"), budget.refuse("a"), budget.refuse("b")] == [True, False, True]
    assert budget.refused == {"a": 2, "b": 1}


def test_few_are_remembered() -> None:
    """Those with a full bucket are as good as strangers; when there is nobody to forget, everybody is, once."""
    budget = Budget(rate=1, burst=5, most=10)
    for number in range(10):
        budget.spend(f"old-{number}", 0.0)
    served(budget, "loud", 5, 100.0)
    assert served(budget, "loud", 5, 100.0) == 0, "it is not forgotten to make room"
    for number in range(100):
        assert budget.spend(f"new-{number}", 100.0) == 0
        budget.refuse(f"new-{number}")
    assert len(budget._buckets) <= 10
    assert len(budget.refused) <= 10


@given(
    rate=st.floats(1, 1000),
    burst=st.floats(1, 100),
    steps=st.lists(st.floats(0, 1), min_size=1, max_size=200),
)
def test_nobody_ever_gets_more(rate: float, burst: float, steps: list[float]) -> None:
    """Than a full bucket and what has run in since."""
    budget, now, answered = Budget(rate=rate, burst=burst), 0.0, 0
    for step in steps:
        now += step
        answered += served(budget, "a", 3, now)
        assert answered <= burst + rate * now + 1e-6

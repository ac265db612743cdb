"""What one caller may ask for, and what all may together."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from controlplane.core import limits
from controlplane.core import request_errors as errors
from controlplane.core.limits import Kind, Limit
from trust.core.identity import Role

SMALL = Limit(burst=3, per_second=10, calls=2, streams=1, request_bytes=100)


def doorman(limit: Limit = SMALL, *, calls: int = 100, streams: int = 100) -> limits.Doorman:
    return limits.Doorman(limits.Limits(callers=dict.fromkeys(Kind, limit), calls=calls, streams=streams))


def refused(made: limits.Doorman, who: str, now_ms: int, *, streams: bool = False) -> errors.Overloaded:
    with pytest.raises(errors.Overloaded) as raised:
        made.enter(Kind.PERSON, who, now_ms, streams=streams)
    return raised.value


def passes(made: limits.Doorman, who: str, now_ms: int) -> None:
    made.leave(made.enter(Kind.PERSON, who, now_ms, streams=False), now_ms, streams=False)


def test_a_bucket_empties_and_fills_and_is_one_s_own() -> None:
    """Three at once, then one every 100 ms; others are not held up by it."""
    made = doorman()
    for _ in range(3):
        passes(made, "ann", 0)
    assert "ann calls more than 10 times a second, after 3 at once" in refused(made, "ann", 0).message
    passes(made, "bob", 0)
    refused(made, "ann", 99)
    passes(made, "ann", 101)


def test_those_who_are_refused_together_come_back_one_after_the_other() -> None:
    """As the docstring's example says; and each succeeds at its moment."""
    made = doorman()
    for _ in range(3):
        passes(made, "ann", 0)
    waits = [refused(made, "ann", 0).retry_after_ms for _ in range(3)]
    assert [wait // 100 for wait in waits] == [1, 2, 3]
    for wait in waits:
        passes(made, "ann", wait)


def test_nobody_is_sent_away_for_longer_than_ten_seconds() -> None:
    """However many are refused."""
    made = doorman(dataclasses.replace(SMALL, per_second=1))
    for _ in range(3):
        passes(made, "ann", 0)
    assert max(refused(made, "ann", 0).retry_after_ms for _ in range(50)) == limits.LONGEST_WAIT_MS


def test_what_is_open_is_bounded_by_kind_and_in_all() -> None:
    """Calls and streams have bounds of their own; what has ended counts no more."""
    made = doorman(streams=2)
    keys = [made.enter(Kind.PERSON, "ann", 0, streams=False) for _ in range(2)]
    assert "ann has 2 calls open, which is the most" in refused(made, "ann", 10_000).message
    made.enter(Kind.PERSON, "ann", 10_000, streams=True)
    assert "ann has 1 streams open" in refused(made, "ann", 10_000, streams=True).message
    made.enter(Kind.PERSON, "bob", 10_000, streams=True)
    assert "2 streams are open, which are all that there may be" in refused(made, "eve", 10_000, streams=True).message
    made.leave(keys[0], 10_000, streams=False)
    passes(made, "ann", 10_000)


def test_a_refusal_takes_nothing_out_of_the_bucket() -> None:
    """Who waits for a stream to end can go on calling."""
    made = doorman()
    made.enter(Kind.PERSON, "ann", 0, streams=True)
    for _ in range(20):
        refused(made, "ann", 0, streams=True)
    passes(made, "ann", 0)
    passes(made, "ann", 0)


def test_callers_are_forgotten_and_never_too_many_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, those who are new share a bucket; who was counted in one leaves that one."""
    monkeypatch.setattr(limits, "MAX_KNOWN", 5)
    made = doorman()
    keys = [made.enter(Kind.STRANGER, f"10.0.0.{number}", 0, streams=False) for number in range(7)]
    assert made.known == 6
    assert keys[5] == keys[6] == (Kind.STRANGER, "")
    for key in keys:
        made.leave(key, 60_000, streams=False)
    assert (made.known, made.calls) == (0, 0)


@hypothesis.given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2_000), st.booleans(), st.booleans()), max_size=80)
)
def test_whatever_happens_the_bounds_hold(steps: list[tuple[str, int, bool, bool]]) -> None:
    """No more than the burst and the rate in any run, no more open than allowed, and in the end nobody is left."""
    made, now_ms = doorman(calls=3, streams=2), 0
    open_calls: list[tuple[limits.Key, bool]] = []
    waits: list[int] = []
    let_in = dict.fromkeys("abc", 0)
    for who, passed_ms, streams, ends in steps:
        now_ms += passed_ms
        if ends and open_calls:
            key, was_stream = open_calls.pop(0)
            made.leave(key, now_ms, streams=was_stream)
        try:
            open_calls.append((made.enter(Kind.PERSON, who, now_ms, streams=streams), streams))
            let_in[who] += 1
        except errors.Overloaded as refusal:
            waits.append(refusal.retry_after_ms)
        assert made.streams <= 2
        assert made.calls <= 3
        assert made.streams + made.calls == len(open_calls)
    assert all(0 < wait <= limits.LONGEST_WAIT_MS for wait in waits)
    assert all(count <= SMALL.burst + now_ms / 1000 * SMALL.per_second + 1e-6 for count in let_in.values())
    for key, was_stream in open_calls:
        made.leave(key, now_ms, streams=was_stream)
    assert (made.calls, made.streams) == (0, 0)


def test_limits_are_changed_one_by_one() -> None:
    """The others stay as they are."""
    made = limits.parse(["person.streams=7", "all.connections=9", "node.request_bytes=1000"])
    assert made.callers[Kind.PERSON] == dataclasses.replace(limits.DEFAULTS.callers[Kind.PERSON], streams=7)
    assert made.callers[Kind.NODE].request_bytes == 1000
    assert (made.connections, made.calls) == (9, limits.DEFAULTS.calls)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person.streams", "is not WHO.WHAT=NUMBER, such as person.streams=200"),
        ("person.streams=0", "with a number from 1"),
        ("person.streams=²", "with a number from 1"),
        ("pod.streams=1", "there is no limit pod.streams: all has calls, streams and connections; person, node"),
        ("all.burst=1", "there is no limit all.burst"),
        ("person.connections=1", "there is no limit person.connections"),
    ],
)
def test_limits_that_make_no_sense_are_refused(text: str, message: str) -> None:
    """With what there is."""
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        limits.parse([text])


def test_every_role_has_a_kind() -> None:
    """And every kind has limits."""
    assert {Kind.of(role) for role in Role} == set(Kind) - {Kind.STRANGER}
    assert set(limits.DEFAULTS.callers) == set(Kind)

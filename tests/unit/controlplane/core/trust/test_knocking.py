"""Who may knock at the door."""

import itertools

from controlplane.core.trust.knocking import ALL, MAX_KNOWN, ONE, Knocking


def heard(knocking: Knocking, address: str, count: int, now_ms: int = 0) -> int:
    """How many of so many requests, one after the other, are heard."""
    taken = 0
    for _ in range(count):
        if not knocking.enter(address, now_ms):
            knocking.leave(address)
            taken += 1
    return taken


def test_one_address_that_knocks_without_end_keeps_nobody_else_out() -> None:
    """It has its own; the others have theirs, then and a minute later."""
    knocking = Knocking()
    for now_ms in range(0, 60_000, 100):
        heard(knocking, "10.0.0.66", 50, now_ms)
    assert heard(knocking, "10.0.0.7", 2, 60_000) == 2
    assert "from 10.0.0.66 at once" in _refusal(knocking, "10.0.0.66", 60_000)


def _refusal(knocking: Knocking, address: str, now_ms: int) -> str:
    """What it is told in the end."""
    said = (knocking.enter(address, now_ms) for _ in range(ONE.burst + ONE.at_once))
    return next(filter(None, said))


def test_one_address_that_opens_and_says_nothing_keeps_nobody_else_out() -> None:
    """So many are open at a time, and the next of others is heard."""
    knocking = Knocking()
    results = [knocking.enter("10.0.0.66", 0) for _ in range(100)]
    assert results.count("") == ONE.at_once
    assert heard(knocking, "10.0.0.7", 2) == 2
    knocking.leave("10.0.0.66")
    assert not knocking.enter("10.0.0.66", 0)


def test_all_together_are_bounded() -> None:
    """Both in what is open and in what is asked a second; it is not the fault of the one who is told."""
    knocking = Knocking()
    results = [knocking.enter(f"10.0.0.{number}", 0) for number in range(200)]
    assert results.count("") == ALL.at_once
    assert set(results) == {"", "too many are joining at once"}
    other = Knocking()
    assert sum(heard(other, f"10.0.1.{number}", 1) for number in range(200)) == ALL.burst
    assert heard(other, "10.0.2.1", 60, 1000) == ONE.burst


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    """Whoever would be treated as a new one is forgotten; who is not is remembered, and what is open is counted."""
    knocking = Knocking()
    moments = itertools.count(0, 20)
    assert not knocking.enter("10.9.9.9", next(moments))
    for number in range(3 * MAX_KNOWN):
        heard(knocking, f"10.{number // 250}.1.{number % 250}", 1, next(moments))
        assert knocking.known <= MAX_KNOWN
    knocking.leave("10.9.9.9")
    full = Knocking()
    for number in range(MAX_KNOWN + 50):
        full.enter(f"10.{number // 250}.1.{number % 250}", 0)
    assert full.known == MAX_KNOWN
    assert full.enter("10.200.0.1", 0) == "too many are joining at once"
    assert full.enter("10.200.0.1", 60_000) == "too many are joining at once", "those that are open are still there"

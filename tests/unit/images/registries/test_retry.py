"""When and how long to wait."""

from __future__ import annotations

import datetime as dt

import pytest

from images.registry import errors, retry
from tests.support.aio import bounded

NOW = dt.datetime(2026, 11, 26, 12, 0, tzinfo=dt.UTC)
POLICY = retry.Policy(attempts=5, base_s=0.25, cap_s=1.5, longest_wait_s=60)


def test_waits_double_up_to_a_bound_and_end() -> None:
    delays = [POLICY.delay_s(failures, asked_s=None, draw=1) for failures in range(1, 7)]
    assert delays == [0.25, 0.5, 1, 1.5, None, None]


def test_chance_spreads_waits_from_nothing_on() -> None:
    assert POLICY.delay_s(3, asked_s=None, draw=0) == 0
    assert POLICY.delay_s(3, asked_s=None, draw=0.5) == 0.5


def test_what_a_registry_asks_for_is_the_least() -> None:
    """Chance comes on top, so that not all come back at the same moment; too long is not waited for."""
    assert POLICY.delay_s(1, asked_s=7, draw=0) == 7
    assert POLICY.delay_s(1, asked_s=7, draw=1) == 7.25
    assert POLICY.delay_s(1, asked_s=61, draw=0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("Thu, 26 Nov 2026 12:00:30 GMT", 30),
        ("Thu, 26 Nov 2026 11:00:00 GMT", 0),
        ("Thu, 26 Nov 2026 12:00:30 -0000", 30),
        ("-1", None),
        ("9" * 5000, None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
        ("soon", None),
        ("١٢", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry.parse_retry_after(text, now=NOW) == seconds


@bounded(5, virtual_time=True)
async def test_only_what_passes_is_tried_again() -> None:
    asked = 0

    async def busy() -> str:
        nonlocal asked
        asked += 1
        if asked < 5:
            raise errors.Unavailable("busy")
        return "done"

    async def wrong() -> str:
        nonlocal asked
        asked += 1
        raise errors.BadAnswer("wrong")

    assert await retry.persist(POLICY, busy) == "done"
    assert asked == 5
    with pytest.raises(errors.BadAnswer):
        await retry.persist(POLICY, wrong)
    assert asked == 6


@bounded(600, virtual_time=True)
async def test_progress_forgives_what_failed_before() -> None:
    patience = retry.Patience(POLICY)
    for _ in range(20):
        for _ in range(4):
            await patience.after(errors.Unavailable("cut"))
        patience.progressed()
    for _ in range(4):
        await patience.after(errors.Unavailable("cut"))
    with pytest.raises(errors.Unavailable, match="cut"):
        await patience.after(errors.Unavailable("cut"))

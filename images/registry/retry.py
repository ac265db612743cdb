"""When to ask again, and after how long.

The rule: only what passes by itself is tried again (a cut connection, 429, 5xx), a bounded number of times, and never
sooner than the registry asks for. `Policy` is a value and decides; `Patience` counts, draws lots and waits.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from images.registry import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`attempts` in all, without progress between them; waits in seconds.

    The n-th wait is drawn from 0 to base · 2^(n-1), at most `cap_s`: with a base of 0.25 s from 0…0.25, 0…0.5, 0…1 and
    0…2 s. A registry's own Retry-After takes the place of that, with one base of chance on top; one that asks for more
    than `longest_wait_s` is not waited for.
    """

    attempts: int = 5
    base_s: float = 0.25
    cap_s: float = 10.0
    longest_wait_s: float = 60.0

    def delay_s(self, failures: int, *, asked_s: float | None, draw: float) -> float | None:
        """The wait after so many failures in a row, or None to give up; `draw` is from 0 to 1."""
        if failures >= self.attempts:
            return None
        if asked_s is None:
            return draw * min(self.cap_s, self.base_s * 2.0 ** (failures - 1))
        return asked_s + draw * self.base_s if asked_s <= self.longest_wait_s else None


class Patience:
    """The failures in a row of one piece of work."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._failures = 0

    def progressed(self) -> None:
        """Something was achieved: what failed before it counts no more."""
        self._failures = 0

    async def after(self, error: errors.RegistryError) -> None:
        """Wait until it is time to try again; raises the error itself when it is time to give up."""
        self._failures += 1
        asked_s = error.retry_after_s if isinstance(error, errors.Unavailable) else None
        delay_s = self._policy.delay_s(self._failures, asked_s=asked_s, draw=random.random())  # noqa: S311 - jitter
        if delay_s is None:
            raise error
        import asyncio  # who only looks at a configuration never waits

        await asyncio.sleep(delay_s)


async def persist(policy: Policy, attempt: Callable[[], Awaitable[T]]) -> T:
    """What the attempt returns; one that ends in `Unavailable` is repeated as the policy says."""
    patience = Patience(policy)
    while True:
        try:
            return await attempt()
        except errors.Unavailable as error:
            await patience.after(error)


def parse_retry_after(text: str | None, *, now: dt.datetime) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, 10.2.3): a number or a date; None for neither."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # no date, or numbers that are no date's
        return None
    if moment.tzinfo is None:  # "-0000": a time in UTC of which nothing more is known
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - now).total_seconds())

"""Waiting, in tests without an event loop, for what nothing announces."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T | None], *, what: str, timeout_s: float = 10, every_s: float = 0.02) -> T:
    """The first true thing that `look` returns, or a failure that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(every_s)


def stays(look: Callable[[], bool], *, what: str, lasting_s: float, every_s: float = 0.2) -> None:
    """A failure when `look` says no within so long."""
    deadline = time.monotonic() + lasting_s
    while time.monotonic() < deadline:
        assert look(), f"not for {lasting_s} s: {what}"
        time.sleep(every_s)

"""Who may knock at the door: so many at a time and so often, from one address and from all together.

The rule: what one address is refused counts for nobody else. So one that knocks without end keeps itself out, and the
others find the door as they would without it.
"""

from dataclasses import dataclass, field
from typing import Final

from controlplane.core.trust.pace import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """`at_once` connections; `burst` requests, and then `per_second`."""

    at_once: int
    burst: int
    per_second: float


ONE: Final = Bound(at_once=16, burst=20, per_second=10.0)
"""Of an address. A whole site may share one (NAT), which lets in five nodes a second: a join is two requests."""
ALL: Final = Bound(at_once=64, burst=100, per_second=50.0)
MAX_KNOWN: Final = 1_000
"""Addresses that are remembered: those with something open, or with a bucket that is not full again."""


@dataclass(slots=True, kw_only=True)
class _Knocker:
    pace: Pace
    open: int = 0


@dataclass(slots=True, kw_only=True)
class Knocking:
    """Whoever is let in by `enter` has to `leave`.

    Example: of 30 requests that one address makes at once, 20 may be heard, 16 of them at a time; another address may
    still make 20 of its own.
    """

    one: Bound = ONE
    all: Bound = ALL
    _known: dict[str, _Knocker] = field(default_factory=dict, init=False)
    _open: int = field(default=0, init=False)
    _pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        """The bucket of all together."""
        self._pace = _bucket(self.all)

    @property
    def open(self) -> int:
        """So many are let in now."""
        return self._open

    @property
    def known(self) -> int:
        """So many addresses are remembered."""
        return len(self._known)

    def enter(self, address: str, now_ms: int) -> str:
        """Empty when one more is heard; else why it is not, for people."""
        knocker = self._knocker(address, now_ms)
        if knocker is None:
            return "too many are joining at once"
        if knocker.open >= self.one.at_once or not knocker.pace.take(now_ms):
            return f"too many are joining from {address} at once"
        if self._open >= self.all.at_once or not self._pace.take(now_ms):
            return "too many are joining at once"
        knocker.open += 1
        self._open += 1
        return ""

    def leave(self, address: str) -> None:
        """What was let in is over."""
        knocker = self._known[address]
        knocker.open -= 1
        self._open -= 1
        assert knocker.open >= 0, "nobody leaves who has not entered"

    def _knocker(self, address: str, now_ms: int) -> _Knocker | None:
        """What is known of an address; None when too many are."""
        found = self._known.get(address)
        if found is None:
            if len(self._known) >= MAX_KNOWN:
                self._forget(now_ms)
            if len(self._known) >= MAX_KNOWN:
                return None
            found = self._known[address] = _Knocker(pace=_bucket(self.one))
        return found

    def _forget(self, now_ms: int) -> None:
        """Those who would be treated the same if they were new."""
        self._known = {
            address: each for address, each in self._known.items() if each.open or not each.pace.is_full(now_ms)
        }


def _bucket(bound: Bound) -> Pace:
    return Pace(burst=bound.burst, per_second=bound.per_second)

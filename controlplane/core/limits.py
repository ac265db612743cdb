"""What one caller may ask of an instance: how large, how often, and how much at a time. And what all may together.

Three rules. A refusal comes before anything is done, names its limit, and says when to come back. Those who are refused
together are told different moments, so that they do not come back together. And what is remembered of callers is
bounded: who has nothing open, and a bucket that is full again, is forgotten.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from controlplane.core import request_errors as errors
from trust.core.identity import PEOPLE, Role

MIB = 1024 * 1024
MAX_KNOWN = 20_000
"""Callers that are remembered at a time; the others share one bucket of their kind."""
LONGEST_WAIT_MS = 10_000
FULL_WAIT_MS = 1_000
"""When to come back if something has to end first, for the first who is refused."""


class Kind(enum.StrEnum):
    """Whose limits count. A stranger has a certificate of the cluster's root and is none of those."""

    PERSON = "person"
    NODE = "node"
    CONTROLPLANE = "controlplane"
    STRANGER = "stranger"

    @classmethod
    def of(cls, role: Role) -> "Kind":
        """The kind that members of a role are."""
        return cls.PERSON if role in PEOPLE else cls(role.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Of one caller. `calls`: those with one answer, `streams`: those with a stream of answers, open at a time."""

    burst: int
    per_second: int
    calls: int
    streams: int
    request_bytes: int
    """Of one message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of an instance. `connections`: from one address (of IPv6, from one /64)."""

    callers: Mapping[Kind, Limit]
    calls: int = 2_000
    streams: int = 20_000
    connections: int = 1_024


DEFAULTS = Limits(
    callers={
        Kind.PERSON: Limit(burst=1_000, per_second=200, calls=100, streams=100, request_bytes=4 * MIB),
        # A node that starts asks for every layer of every image that it is to run.
        Kind.NODE: Limit(burst=2_000, per_second=200, calls=200, streams=256, request_bytes=4 * MIB),
        Kind.CONTROLPLANE: Limit(burst=5_000, per_second=500, calls=500, streams=500, request_bytes=4 * MIB),
        Kind.STRANGER: Limit(burst=20, per_second=5, calls=4, streams=4, request_bytes=64 * 1024),
    }
)


def parse(texts: list[str], base: Limits = DEFAULTS) -> Limits:
    """The limits with changes such as `person.streams=200` or `all.connections=64`. Raises ValueError."""
    made = base
    for text in texts:
        place, _, value = text.partition("=")
        who, _, what = place.partition(".")
        if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 10**9:
            raise ValueError(
                f"{text!r} is not WHO.WHAT=NUMBER, such as person.streams=200, with a number from 1 to 10^9"
            )
        made = _changed(made, who, what, int(value))
    return made


def _changed(limits: Limits, who: str, what: str, value: int) -> Limits:
    own = ("calls", "streams", "connections") if who == "all" else Limit.__slots__
    if who not in {"all", *Kind} or what not in own:
        known = f"all has calls, streams and connections; {', '.join(Kind)} have {', '.join(Limit.__slots__)}"
        raise ValueError(f"there is no limit {who}.{what}: {known}")
    if who == "all":
        return replace(limits, **{what: value})  # type: ignore[arg-type]  # the names were looked up
    kind = Kind(who)
    changed = replace(limits.callers[kind], **{what: value})
    return replace(limits, callers={**limits.callers, kind: changed})


@dataclass(slots=True, kw_only=True)
class _Known:
    """What is remembered of a caller."""

    left: float
    at_ms: int
    calls: int = 0
    streams: int = 0
    told_until_ms: int = 0
    """The latest moment that somebody who was refused was told to come back at."""


Key = tuple[Kind, str]


@dataclass(slots=True)
class Doorman:
    """Counts. Whoever was let in leaves again: `enter` before a call, `leave` after it."""

    limits: Limits
    calls: int = 0
    streams: int = 0
    refused: int = 0
    _known: dict[Key, _Known] = field(default_factory=dict)

    def enter(self, kind: Kind, who: str, now_ms: int, *, streams: bool) -> Key:
        """Lets one call in; what to leave with. Raises Overloaded, and has only counted then who will come back."""
        limit = self.limits.callers[kind]
        key, known = self._of(kind, who, limit, now_ms)
        name = who or kind
        try:
            _check_rate(known, limit, name, now_ms)
            _check_open(known, limit, name, now_ms, streams=streams)
            self._check_all(known, now_ms, streams=streams)
        except errors.Overloaded:
            self.refused += 1
            raise
        known.left -= 1
        self._count(known, 1, streams=streams)
        return key

    def leave(self, key: Key, now_ms: int, *, streams: bool) -> None:
        """The call has ended."""
        known = self._known[key]
        self._count(known, -1, streams=streams)
        _fill(known, self.limits.callers[key[0]], now_ms)
        if self._is_forgettable(known, key[0], now_ms):
            del self._known[key]

    @property
    def known(self) -> int:
        """How many callers are remembered."""
        return len(self._known)

    def _count(self, known: _Known, change: int, *, streams: bool) -> None:
        if streams:
            known.streams += change
            self.streams += change
        else:
            known.calls += change
            self.calls += change

    def _of(self, kind: Kind, who: str, limit: Limit, now_ms: int) -> tuple[Key, _Known]:
        key = (kind, who)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._forget(now_ms)
            key = (kind, who if len(self._known) < MAX_KNOWN else "")
        found = self._known.setdefault(key, _Known(left=limit.burst, at_ms=now_ms))
        _fill(found, limit, now_ms)
        return key, found

    def _forget(self, now_ms: int) -> None:
        for (kind, who), known in list(self._known.items()):
            _fill(known, self.limits.callers[kind], now_ms)
            if self._is_forgettable(known, kind, now_ms):
                del self._known[kind, who]

    def _is_forgettable(self, known: _Known, kind: Kind, now_ms: int) -> bool:
        idle = known.calls == known.streams == 0 and known.told_until_ms <= now_ms
        return idle and known.left >= self.limits.callers[kind].burst

    def _check_all(self, known: _Known, now_ms: int, *, streams: bool) -> None:
        count, most = (self.streams, self.limits.streams) if streams else (self.calls, self.limits.calls)
        if count >= most:
            what = "streams are" if streams else "calls are being"
            raise _full(
                known, f"{most} {what} {'open' if streams else 'answered'}, which are all that there may be", now_ms
            )


def _fill(known: _Known, limit: Limit, now_ms: int) -> None:
    """A clock that was set back fills nothing."""
    passed_s = max(0, now_ms - known.at_ms) / 1000
    known.left = min(float(limit.burst), known.left + passed_s * limit.per_second)
    known.at_ms = now_ms


def _check_rate(known: _Known, limit: Limit, name: str, now_ms: int) -> None:
    if known.left >= 1:
        return
    gap_ms = 1000 / limit.per_second
    first_ms = (1 - known.left) * gap_ms
    text = f"{name} calls more than {limit.per_second} times a second, after {limit.burst} at once"
    raise _later(known, text, now_ms, first_ms, gap_ms)


def _check_open(known: _Known, limit: Limit, name: str, now_ms: int, *, streams: bool) -> None:
    if streams and known.streams >= limit.streams:
        raise _full(known, f"{name} has {limit.streams} streams open, which is the most", now_ms)
    if not streams and known.calls >= limit.calls:
        raise _full(known, f"{name} has {limit.calls} calls open, which is the most", now_ms)


def _full(known: _Known, text: str, now_ms: int) -> errors.Overloaded:
    return _later(known, text, now_ms, FULL_WAIT_MS, 10)


def _later(known: _Known, text: str, now_ms: int, first_ms: float, gap_ms: float) -> errors.Overloaded:
    """Each is told a moment a gap later than the one before.

    Example: 10 a second, an empty bucket, three refused at once → after 100, 200 and 300 ms.
    """
    wish = max(now_ms + first_ms, known.told_until_ms + gap_ms)
    moment = min(int(wish) + 1, now_ms + LONGEST_WAIT_MS)
    known.told_until_ms = max(known.told_until_ms, moment)
    wait_ms = max(1, moment - now_ms)
    return errors.Overloaded(text, hint=f"come back in {wait_ms / 1000:.1f} s", retry_after_ms=wait_ms)

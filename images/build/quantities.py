"""Small values inside instructions: times, sizes, modes, signals and ports.

Each reader raises ValueError with the remedy; whoever calls adds the place, since these know only the text.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION = re.compile(r"(?:(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h))", re.ASCII)
_MAX_DURATION_NS = (1 << 63) - 1
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([kmgtp]?)i?b?", re.ASCII | re.IGNORECASE)
_OCTAL = re.compile(r"0?[0-7]{1,4}", re.ASCII)
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)", re.ASCII)
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)", re.ASCII)
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_REALTIME = re.compile(r"(?:SIG)?RT(MIN|MAX)(?:([-+])(\d{1,2}))?", re.ASCII)
_REALTIME_RANGE = range(34, 65)
_MAX_DIGITS = 20
_MIN_CHECK_NS = 10**6


def whole_number(text: str, *, most: int) -> int | None:
    """The number from 0 to `most` that these digits are; None for anything else, however long."""
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        return None
    number = int(text)
    return number if number <= most else None


def duration_ns(text: str) -> int:
    """Nanoseconds of `1m30s`, as Go writes times: `300ms`, `1.5h`, a bare `0`."""
    parts = list(_DURATION.finditer(text))
    if text != "0" and (not parts or "".join(part[0] for part in parts) != text):
        raise ValueError(f"{text!r:.60} is no time; write numbers with units: 30s, 1m30s, 500ms")
    # Fractions are exact: 0.3s are 300,000,000 ns, not one less.
    total = sum(int(Fraction(f"0{part[1]}0" if "." in part[1] else part[1]) * _UNITS_NS[part[2]]) for part in parts)
    if total > _MAX_DURATION_NS:
        raise ValueError(f"{text!r:.60} is longer than 292 years; write less")
    return total


def check_duration_ns(text: str) -> int:
    """The time of a health check: nothing (0, for the default), or at least a millisecond."""
    found = duration_ns(text)
    if 0 < found < _MIN_CHECK_NS:
        raise ValueError(f"{text!r} is too short; write 1ms or more, or 0 for the default")
    return found


def size_bytes(text: str) -> int:
    """Bytes of `64m`, `1.5g`, `4096`: powers of 1024, in any case, with or without a b."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.60} is no size; write a number with k, m or g: 64m")
    return int(Fraction(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def signal_number(text: str) -> int:
    """The number of `SIGTERM`, `term`, `15` or `SIGRTMIN+3` (Linux's numbers on every machine that we run on)."""
    name = text.upper()
    if number := whole_number(name, most=_REALTIME_RANGE.stop - 1):
        return number
    if match := _REALTIME.fullmatch(name):
        return _realtime(match, text)
    found = signal.Signals.__members__.get(f"SIG{name.removeprefix('SIG')}")
    if found is None:
        raise ValueError(f"{text!r:.60} is no signal; write a name or a number: SIGTERM, SIGQUIT, 9")
    return found.value


def _realtime(match: re.Match[str], text: str) -> int:
    start = _REALTIME_RANGE.start if match[1] == "MIN" else _REALTIME_RANGE.stop - 1
    number = start + int(f"{match[2] or '+'}{match[3] or '0'}")
    if number not in _REALTIME_RANGE:
        raise ValueError(f"{text!r:.60} is outside of SIGRTMIN and SIGRTMAX; there are 30 between them")
    return number


def ports(text: str) -> tuple[str, ...]:
    """`80`, `53/udp` or `8000-8010/tcp` as an image's configuration names them: `80/tcp`, one each."""
    match = _PORTS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r:.60} is no port; write 80, 53/udp or 8000-8010/tcp")
    start, end = int(match[1]), int(match[2] or match[1])
    if not 1 <= start <= end <= 65535:
        raise ValueError(f"{text!r:.60}: ports go from 1 to 65535, the lower one first")
    return tuple(f"{port}/{(match[3] or 'tcp').lower()}" for port in range(start, end + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """One action of a symbolic mode: `who` as a mask of the bits that it may touch."""

    who: str
    operator: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What `--chmod` asks for: a number, or changes to the mode that a file has."""

    absolute: int | None = None
    changes: tuple[_Change, ...] = ()

    def of(self, mode: int, *, is_folder: bool) -> int:
        """The permission bits (at most 0o7777) of something that has `mode` now."""
        if self.absolute is not None:
            return self.absolute
        for change in self.changes:
            mode = _changed(mode & 0o7777, change, is_folder=is_folder)
        return mode & 0o7777


def mode(text: str) -> Mode:
    """`755`, `0755`, `u=rwX,go=rX` or `+x`, as chmod(1) reads them; the umask plays no part."""
    if _OCTAL.fullmatch(text):
        return Mode(absolute=int(text, 8))
    clauses = [_CLAUSE.fullmatch(clause) for clause in text.split(",")]
    if not all(clauses):
        raise ValueError(f"{text!r:.60} is no mode; write 755, or changes: u=rwX,go=rX")
    return Mode(changes=tuple(change for clause in clauses if clause for change in _changes(clause)))


def _changes(clause: re.Match[str]) -> Iterator[_Change]:
    for action in _ACTION.finditer(clause[2]):
        yield _Change(who=clause[1].replace("a", "ugo") or "ugo", operator=action[1], what=action[2])


_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
# What each may touch; the sticky bit goes with the others.
_TOUCHED = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_SET_ID = 0o6000


def _changed(mode: int, change: _Change, *, is_folder: bool) -> int:
    wanted = _special(change)
    for who in change.who:
        wanted |= _wanted(mode, change.what, is_folder=is_folder) << _SHIFTS[who]
    if change.operator == "+":
        return mode | wanted
    if change.operator == "-":
        return mode & ~wanted
    touched = sum(_TOUCHED[who] for who in set(change.who))
    # chmod(1) keeps the set-id bits of a folder unless they are named.
    return mode & ~(touched & ~_SET_ID if is_folder else touched) | wanted


def _wanted(mode: int, what: str, *, is_folder: bool) -> int:
    """The three bits for one of user, group and others."""
    if what in _SHIFTS:
        return mode >> _SHIFTS[what] & 7
    executable = is_folder or bool(mode & 0o111)
    return sum(_BITS[letter] for letter in set(what.replace("X", "x" if executable else "")) & _BITS.keys())


def _special(change: _Change) -> int:
    """The set-id and sticky bits that are named, of those that whoever is named may touch."""
    touched = sum(_TOUCHED[who] for who in set(change.who))
    named = (_SET_ID if "s" in change.what else 0) | (0o1000 if "t" in change.what else 0)
    return named & touched

"""`linux.timeOffsets`: what a new time namespace adds to the clocks that count from the machine's start."""

from typing import Final

from runtime.fields import Fields
from runtime.values import frozen

CLOCKS: Final = ("monotonic", "boottime")
_MAX_SECONDS: Final = 2**63 - 1
_MAX_NANOSECONDS: Final = 10**9 - 1


@frozen
class TimeOffset:
    """The offset of one clock; the nanoseconds are added to the seconds, also to negative ones."""

    clock: str
    seconds: int
    nanoseconds: int


def parse_time_offsets(linux: Fields) -> tuple[TimeOffset, ...]:
    """Read `linux.timeOffsets`; raises InvalidSpec."""
    fields = linux.maybe_child("timeOffsets")
    if fields is None:
        return ()
    found = tuple(_offset(fields.child(clock), clock) for clock in CLOCKS if fields.has(clock))
    fields.finish()
    return found


def _offset(fields: Fields, clock: str) -> TimeOffset:
    offset = TimeOffset(
        clock=clock,
        seconds=fields.number("secs", low=-_MAX_SECONDS, high=_MAX_SECONDS, default=0),
        nanoseconds=fields.number("nanosecs", low=0, high=_MAX_NANOSECONDS, default=0),
    )
    fields.finish()
    return offset

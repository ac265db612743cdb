"""Which refusals the audit log tells: of each caller twenty at once and then one a minute, with how many there were.

Two rules. Whoever is refused without end costs as little as whoever is refused now and then. And nothing is passed over
in silence: the newest that was left out is told as soon as the pace allows, with the number of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane.core.trust.pace import Pace
from protos.orch.v1 import trust_pb2 as pb

BURST, PER_SECOND = 20, 1 / 60
MAX_REFUSAL = 300
"""Characters of what is told of one."""


@dataclass(slots=True, kw_only=True)
class _Caller:
    pace: Pace = field(default_factory=lambda: Pace(burst=BURST, per_second=PER_SECOND))
    newest: pb.AuditRecord | None = None
    """The newest that is not told."""
    left_out: int = 0
    """So many are not told, this one with them."""


class Refusals:
    """Example: of 6,000 that a node gets in half a minute 20 are told, and then the newest, with `5,979 more`."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = {}

    @property
    def known(self) -> int:
        """So many members are remembered: those with a refusal in the last twenty minutes."""
        return len(self._callers)

    def take(self, who: str, record: pb.AuditRecord, now_ms: int) -> pb.AuditRecord | None:
        """What is to be told when `who` is refused once more. None: nothing now."""
        caller = self._callers.setdefault(who, _Caller())
        if caller.pace.take(now_ms):
            return _told(caller, record, caller.left_out)
        caller.newest = record
        caller.left_out += 1
        return None

    def due(self, now_ms: int) -> Sequence[pb.AuditRecord]:
        """What was left out, of those whose pace allows one more by now. Others are forgotten in time."""
        due = [one for one in self._callers.values() if one.left_out and one.pace.take(now_ms)]
        told = _newest_of(due)
        self._callers = {who: one for who, one in self._callers.items() if one.left_out or not one.pace.is_full(now_ms)}
        return told

    def rest(self) -> Sequence[pb.AuditRecord]:
        """What was left out, whatever the pace: before an instance ends."""
        return _newest_of([one for one in self._callers.values() if one.left_out])


def _newest_of(callers: Sequence[_Caller]) -> Sequence[pb.AuditRecord]:
    return [_told(one, one.newest, one.left_out - 1) for one in callers if one.newest is not None]


def _told(caller: _Caller, record: pb.AuditRecord, others: int) -> pb.AuditRecord:
    """The record, and in its text how many others are not told. Those are done with."""
    caller.newest, caller.left_out = None, 0
    more = f"; and {others:,} more since the refusal before" if others else ""
    record.refused = f"{record.refused[: MAX_REFUSAL - len(more)]}{more}"
    return record

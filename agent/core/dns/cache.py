"""What the node's own servers have answered, for as long as they say that it holds.

Two rules: an answer that is not there is remembered too, as long as its SOA record says (RFC 2308); and what is held is
bounded in bytes: what was not asked for longest goes first.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple

from agent.core.dns import wire
from agent.core.dns.wire import Answer, Record

MAX_BYTES: Final = 4 << 20
MAX_TTL_S: Final = 86_400
MAX_NEGATIVE_TTL_S: Final = 300
_ENTRY_BYTES: Final = 1024  # of memory, for an entry without its records
_RECORD_BYTES: Final = 256  # likewise, for a record without its name and data


class _Entry(NamedTuple):
    answer: Answer
    since_s: float
    until_s: float
    size_bytes: int


class Cache:
    """Answers by question."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now_s: float) -> Answer | None:
        """The answer, each record with the time that it has left."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until_s <= now_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return _aged(entry.answer, int(now_s - entry.since_s))

    def put(self, key: Hashable, answer: Answer, now_s: float) -> None:
        """Keep an answer, if it may be kept."""
        ttl_s = ttl_of(answer)
        size = _ENTRY_BYTES + sum(_RECORD_BYTES + len(each.name) + len(each.data) for each in _records(answer))
        self._drop(key)
        if ttl_s <= 0 or size > self._max_bytes // 16:
            return
        self._entries[key] = _Entry(answer, now_s, now_s + ttl_s, size)
        self.size_bytes += size
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes


def ttl_of(answer: Answer) -> int:
    """How many seconds an answer may be kept; 0 for not at all."""
    if answer.truncated or answer.code not in {wire.NOERROR, wire.NXDOMAIN}:
        return 0
    records = _records(answer)
    shortest = min((record.ttl_s for record in records), default=0)
    negative = answer.code == wire.NXDOMAIN or not answer.answers or answer.answers[-1].kind == wire.CNAME
    if not negative:
        return min(shortest, MAX_TTL_S)
    limits = [wire.negative_ttl_s(record) for record in answer.authority if record.kind == wire.SOA]
    return min(shortest, *limits, MAX_NEGATIVE_TTL_S) if limits else 0


def _records(answer: Answer) -> tuple[Record, ...]:
    return answer.answers + answer.authority + answer.additional


def _aged(answer: Answer, seconds: int) -> Answer:
    if not seconds:
        return answer
    return answer._replace(
        answers=_older(answer.answers, seconds),
        authority=_older(answer.authority, seconds),
        additional=_older(answer.additional, seconds),
    )


def _older(records: tuple[Record, ...], seconds: int) -> tuple[Record, ...]:
    return tuple(record._replace(ttl_s=max(0, record.ttl_s - seconds)) for record in records)

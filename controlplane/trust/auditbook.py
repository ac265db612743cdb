"""The cluster's audit log in the store: what every instance has told, the same from any of them, and bounded.

Three rules. A call never waits for it: what is told is written a moment later, together with what else there is. While
the store does not answer, a thousand wait; the file of each instance (`audit.py`) has the others. And whatever somebody
does pushes out their own records alone: refusals none of what was done, and neither what others did
(`core/trust/shares.py`).
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence

import structlog

from controlplane.core.trust import shares
from controlplane.store import api, errors, writer
from protos.orch.v1 import trust_pb2 as pb

PREFIX = "/orch-audit/"
MAX_DONE = 5_000
MAX_REFUSED = 1_000
"""All together some 2 MB in the store."""
TRIM_EVERY = 200
"""So many may be there beyond them, for each instance; and beyond those that wait."""
MAX_WAITING = 1_000
GATHER_S = 0.2
RETRY_S = 1.0

_log = structlog.get_logger()


def key_of(record: pb.AuditRecord, name: str) -> str:
    """Where an entry is written. `name`: tells it from others of its instance in the same millisecond.

    In the order of time: thirteen figures of milliseconds last until the year 2286.
    """
    return f"{PREFIX}{record.at:013d}-{record.instance}-{name}"


class AuditBook:
    """Run `run`; `add` may be called at once."""

    def __init__(self, store: api.Store, instance: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._instance = instance
        self._now_ms = now_ms
        self._numbers = itertools.count(1)
        self._waiting: dict[str, pb.AuditRecord] = {}
        self._filled = asyncio.Event()
        self._since_trimmed = TRIM_EVERY

    def add(self, record: pb.AuditRecord) -> None:
        """Has it written soon. Who tells of it is this instance."""
        record.instance = self._instance
        record.at = record.at or self._now_ms()
        # Its name is its own: written twice, after an answer was lost, it is one entry.
        self._waiting[key_of(record, f"{next(self._numbers):08d}")] = record
        if len(self._waiting) >= MAX_WAITING + TRIM_EVERY:
            for surplus in _surplus(self._waiting, MAX_WAITING):
                del self._waiting[surplus]
        self._filled.set()

    async def entries(self, request: pb.ListAuditRequest) -> Sequence[pb.AuditRecord]:
        """Those that are asked for, the newest last. Raises what the store raises."""
        listing = await self._store.list(PREFIX)
        found = [pb.AuditRecord.FromString(one.value) for one in listing.entries]
        wanted = [one for one in found if one.at >= request.since]
        return wanted[-request.limit :] if request.limit else wanted

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(GATHER_S)
            try:
                await self._write()
            except errors.Temporary as error:
                _log.info("the audit log waits for the store", why=str(error), waiting=len(self._waiting))
                await asyncio.sleep(RETRY_S)

    async def _write(self) -> None:
        puts = [api.Put(key=key, value=record.SerializeToString()) for key, record in self._waiting.items()]
        await writer.write(self._store, ([put] for put in puts))
        for put in puts:
            self._waiting.pop(put.key, None)  # it may have made room for others meanwhile
        if not self._waiting:
            self._filled.clear()
        self._since_trimmed += len(puts)
        if self._since_trimmed >= TRIM_EVERY:
            await self._trim()
            self._since_trimmed = 0

    async def _trim(self) -> None:
        """Takes away what is too much. Two instances that do it together take the same ones."""
        there = {one.key: pb.AuditRecord.FromString(one.value) for one in (await self._store.list(PREFIX)).entries}
        refused = {key: one for key, one in there.items() if shares.is_refusal(one)}
        done = {key: one for key, one in there.items() if key not in refused}
        surplus = [*_surplus(refused, MAX_REFUSED), *_surplus(done, MAX_DONE)]
        await writer.write(self._store, ([api.Delete(key=key)] for key in surplus))


def _surplus(records: Mapping[str, pb.AuditRecord], keep: int) -> Sequence[str]:
    """The keys of those that go. `records`: the oldest first."""
    keys = list(records)
    return [keys[place] for place in shares.surplus(map(shares.share, records.values()), keep)]

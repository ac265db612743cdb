"""What changed, for the loops that wait for it.

Events only wake a loop. So a subscription may forget: one whose reader fell too far behind drops everything and says
`resync`, and the reader looks at the whole snapshot, as it does when it starts.
"""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from controlplane.store import snapshots

PENDING_LIMIT = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes in the order in which they happened; with `resync` there are none, and anything may have changed."""

    changes: tuple[snapshots.Change, ...]
    resync: bool


class Subscription:
    """One reader's queue. `take` waits until there is something to look at."""

    def __init__(self, kinds: Collection[str], limit: int) -> None:
        assert limit > 0
        self._kinds = frozenset(kinds)
        self._limit = limit
        self._pending: list[snapshots.Change] = []
        self._resync = False
        self._filled = asyncio.Event()

    async def take(self) -> Changes:
        """Everything since the last call. One reader at a time."""
        await self._filled.wait()
        return self.take_now()

    def take_now(self) -> Changes:
        """Everything since the last call, be it nothing."""
        self._filled.clear()
        taken = Changes(changes=tuple(self._pending), resync=self._resync)
        self._pending.clear()
        self._resync = False
        return taken

    def push(self, changes: Iterable[snapshots.Change]) -> None:
        """Add changes of the wanted kinds; too many become a resync."""
        if self._resync:
            return
        self._pending.extend(change for change in changes if not self._kinds or change.kind.name in self._kinds)
        if len(self._pending) > self._limit:
            self.resync()
        elif self._pending:
            self._filled.set()

    def resync(self) -> None:
        """Forget what is pending: the reader has to look at everything."""
        self._pending.clear()
        self._resync = True
        self._filled.set()

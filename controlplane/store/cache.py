"""All objects in memory: list once, then watch. Reads of the control plane are served from here.

Two rules. A snapshot is of exactly one revision of the store. And after a gap (the history was compacted while the
link was lost) the cache lists again and tells the differences as changes, so nobody has to know that there was one.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Iterator

import structlog

from controlplane.store import api, errors, feed, snapshots, typed
from protos import kinds

ROOT = "/orch"
"""Wider than the objects' keys: with the leader's key in sight, every revision of the store passes by."""

BACKOFF_S = 0.1
BACKOFF_MAX_S = 2.0
DECODE_AT_ONCE = 2_000
"""Entries of a listing that are decoded before others get a turn."""

log = structlog.get_logger(__name__)


class Cache:
    """Run `run` in a task group; everything else may be used at once and waits, or answers from what is there."""

    def __init__(self, store: api.Store) -> None:
        self._store = store
        self._editor = snapshots.Editor()
        self._loaded = False
        self._connected = False
        self._lost_at: float | None = None
        self._failures = 0
        self._moved = asyncio.Event()  # set, and replaced, when the revision or the link changed
        self._subscriptions: dict[feed.Subscription, None] = {}  # in the order in which they came

    @property
    def connected(self) -> bool:
        """Whether the watch stands. When it does not, reads are as old as `stale_for_s` says."""
        return self._connected

    @property
    def revision(self) -> int:
        """Everything up to this revision of the store is in the snapshot; 0 before the first listing."""
        return self._editor.revision

    def stale_for_s(self) -> float | None:
        """0 while connected; else the time since the link was lost; None when there never was one."""
        if self._connected:
            return 0.0
        return None if self._lost_at is None else asyncio.get_running_loop().time() - self._lost_at

    def snapshot(self) -> snapshots.Snapshot:
        """The newest state; free when nothing changed since the last call, else in proportion to what did."""
        return self._editor.snapshot()

    async def wait_for(self, revision: int, timeout_s: float) -> snapshots.Snapshot:
        """The first snapshot at or after `revision`, such as a commit of one's own; 1 waits for the first listing."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (self._loaded and self.revision >= revision):
                    await self._moved.wait()
        except TimeoutError:
            raise errors.Unavailable(
                f"the cache is at revision {self.revision} and did not reach {revision} within {timeout_s} s; "
                + ("retry" if self._connected else "the store cannot be reached")
            ) from None
        return self.snapshot()

    @contextlib.contextmanager
    def subscribe(self, only: Collection[str] = (), *, limit: int = feed.PENDING_LIMIT) -> Iterator[feed.Subscription]:
        """Changes of the kinds named in `only` (all when empty); the first `take` is a resync."""
        subscription = feed.Subscription(only, limit)
        if self._loaded:
            subscription.resync()
        self._subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            del self._subscriptions[subscription]

    async def run(self) -> None:
        """Follow the store until cancelled; raises only what is `Fatal`."""
        listed = False
        while True:
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._follow()
            except errors.Compacted as error:
                listed = False
                await self._pause(error)
            except errors.Temporary as error:
                await self._pause(error)

    async def _list(self) -> None:
        """Make the snapshot equal to what the store holds, whatever it was before."""
        listing = await self._store.list(ROOT)
        same_history = listing.revision >= self.revision  # else etcd was restored, and equal versions may differ
        present: set[str] = set()
        updates: list[tuple[str, kinds.StoredObject | None]] = []
        for number, entry in enumerate(listing.entries):
            if number % DECODE_AT_ONCE == 0:
                await asyncio.sleep(0)
            present.add(entry.key)
            if not same_history or self._editor.version(entry.key) != entry.version:
                updates.append((entry.key, typed.decode(entry.key, entry.value, entry.version)))
        gone = [(key, None) for key in self._editor.present_keys() if key not in present]
        self._apply([*gone, *updates], listing.revision)

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._store.watch(ROOT, self.revision)) as batches:
            async for batch in batches:
                if not batch.connected:
                    self._lost_link()
                    continue
                self._connected, self._failures = True, 0
                self._apply([(event.key, _decoded(event)) for event in batch.events], batch.revision)

    def _apply(self, updates: Iterable[tuple[str, kinds.StoredObject | None]], revision: int) -> None:
        """Between two turns of the event loop, so that no snapshot shows half a revision."""
        changes: list[snapshots.Change] = []
        for key, value in updates:
            kind = kinds.kind_of_key(key)
            change = self._editor.replace(kind, key, value) if kind else None
            if change is not None:
                changes.append(change)
        self._editor.advance(revision)
        for subscription in self._subscriptions:
            if self._loaded:
                subscription.push(changes)
            else:
                subscription.resync()
        self._loaded = True
        self._wake()

    def _lost_link(self) -> None:
        if self._connected:
            self._connected = False
            self._lost_at = asyncio.get_running_loop().time()
            self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _pause(self, error: errors.StoreError) -> None:
        self._lost_link()
        self._failures += 1
        log.warning("cache.interrupted", reason=str(error), failures=self._failures)
        await asyncio.sleep(min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** min(self._failures - 1, 10)))


def _decoded(event: api.Event) -> kinds.StoredObject | None:
    return None if event.value is None else typed.decode(event.key, event.value, event.version)

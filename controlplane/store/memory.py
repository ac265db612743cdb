"""A store in one process's memory, for tests and the simulation.

It behaves like etcd down to revision numbers, and it is deterministic: one event loop, no threads, no clock but the
loop's own, so a loop with virtual time drives its leases too.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from controlplane.store import api, errors

BATCH_REVISIONS = 1000
"""Revisions in one batch of a watch that is catching up; etcd has the same number."""

Observer = Callable[[int, Sequence[api.Event], api.Fence | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    value: bytes
    created: int
    version: int
    lease: int | None


@dataclass(slots=True, kw_only=True)
class _Lease:
    ttl_s: int
    timer: asyncio.TimerHandle
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """The `Store` protocol over a dictionary, plus hooks for the simulation.

    `on_commit(revision, events, fence)` is called inside every commit that changes something. `history_limit` bounds
    the revisions kept; older ones are compacted. `lapse`, `pause_watches` and `resume_watches` are faults to play.
    """

    def __init__(self, *, on_commit: Observer | None = None, history_limit: int = 100_000) -> None:
        assert history_limit > 0
        self._on_commit = on_commit
        self._history_limit = history_limit
        self._records: dict[str, _Record] = {}
        self._leases: dict[int, _Lease] = {}
        self._last_lease = 0
        self._revision = 1  # an empty etcd is at revision 1
        self._history: list[tuple[api.Event, ...]] = []  # of the revisions _forgotten + 1 … _revision
        self._forgotten = 1
        self._pulse = asyncio.Event()  # set, and replaced, when a watch has something to look at
        self._paused = False
        self._closed = False

    async def list(self, prefix: str) -> api.Listing:
        await self._turn()
        entries = (
            api.Entry(key=key, value=record.value, version=record.version)
            for key, record in sorted(self._records.items())
            if key.startswith(prefix)
        )
        return api.Listing(entries=tuple(entries), revision=self._revision)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[api.EventBatch, None]:
        await self._turn()
        seen = after
        self._check_history(seen)
        yield api.EventBatch(events=(), revision=seen)
        while True:
            pulse = self._pulse
            if self._closed:
                raise errors.Fatal(f"the store was closed while {prefix} was watched")
            if self._paused or seen >= self._revision:
                await pulse.wait()
                continue
            self._check_history(seen)
            last = min(self._revision, seen + BATCH_REVISIONS)
            batch = self._history[seen - self._forgotten : last - self._forgotten]
            seen = last
            events = tuple(event for revision in batch for event in revision if event.key.startswith(prefix))
            if events:
                yield api.EventBatch(events=events, revision=last)

    async def commit(self, changes: Sequence[api.Change], *, fence: api.Fence | None = None) -> int:
        api.check_commit(changes, fence)
        await self._turn()
        self._check_fence(fence)
        conflicts = [change.key for change in changes if not self._holds(change)]
        if conflicts:
            raise errors.Conflict(conflicts)
        for change in changes:
            if isinstance(change, api.Put) and change.lease is not None and change.lease not in self._leases:
                raise errors.LeaseExpired(change.lease)
        self._apply(changes, fence)
        return self._revision

    async def grant_lease(self, ttl_s: float) -> int:
        await self._turn()
        self._last_lease += 1
        lease, whole_s = self._last_lease, max(1, math.ceil(ttl_s))
        self._leases[lease] = _Lease(ttl_s=whole_s, timer=self._expire_in(lease, whole_s))
        return lease

    async def keep_alive(self, lease: int) -> float:
        await self._turn()
        if lease not in self._leases:
            raise errors.LeaseExpired(lease)
        held = self._leases[lease]
        held.timer.cancel()
        held.timer = self._expire_in(lease, held.ttl_s)
        return held.ttl_s

    async def revoke(self, lease: int) -> None:
        await self._turn()
        self.lapse(lease)

    async def compact(self, revision: int) -> None:
        await self._turn()
        if revision > self._revision:
            raise errors.Fatal(f"cannot compact at revision {revision}: the store is at {self._revision}")
        self._forget_up_to(revision)

    async def close(self) -> None:
        self._closed = True
        for held in self._leases.values():
            held.timer.cancel()
        self._wake_watches()

    def lapse(self, lease: int) -> None:
        """Let a lease expire now, as if nobody had kept it alive."""
        held = self._leases.pop(lease, None)
        if held is None:
            return
        held.timer.cancel()
        self._apply([api.Delete(key=key) for key in sorted(held.keys)], None)

    def pause_watches(self) -> None:
        """Hold back all events until `resume_watches`; commits go on."""
        self._paused = True

    def resume_watches(self) -> None:
        self._paused = False
        self._wake_watches()

    async def _turn(self) -> None:
        """Let others run first, as a network would: code that relies on a commit being instant shows itself."""
        await asyncio.sleep(0)
        if self._closed:
            raise errors.Fatal("the store is closed")

    def _check_history(self, seen: int) -> None:
        """The revisions after `seen` must all be kept; a `seen` in the future is of another store's history."""
        if seen < self._forgotten or seen > self._revision:
            raise errors.Compacted(seen, self._forgotten)

    def _check_fence(self, fence: api.Fence | None) -> None:
        if fence is None:
            return
        record = self._records.get(fence.key)
        if record is None or record.created != fence.version:
            raise errors.Deposed(fence.key, fence.version)

    def _holds(self, change: api.Change) -> bool:
        if change.expect is None:
            return True
        record = self._records.get(change.key)
        return (record.version if record else 0) == change.expect

    def _apply(self, changes: Sequence[api.Change], fence: api.Fence | None) -> None:
        """Write the changes as the next revision; without an effect there is no revision."""
        revision = self._revision + 1
        events = tuple(event for change in changes if (event := self._change(change, revision)))
        if not events:
            return
        self._revision = revision
        self._history.append(events)
        if len(self._history) > self._history_limit:
            self._forget_up_to(revision - self._history_limit // 2)
        if self._on_commit is not None:
            self._on_commit(revision, events, fence)
        self._wake_watches()

    def _change(self, change: api.Change, revision: int) -> api.Event | None:
        before = self._records.pop(change.key, None)
        if before is not None and before.lease is not None and before.lease in self._leases:
            self._leases[before.lease].keys.discard(change.key)
        if isinstance(change, api.Delete):
            return api.Event(key=change.key, value=None, version=revision) if before else None
        created = before.created if before else revision
        self._records[change.key] = _Record(value=change.value, created=created, version=revision, lease=change.lease)
        if change.lease is not None:
            self._leases[change.lease].keys.add(change.key)
        return api.Event(key=change.key, value=change.value, version=revision)

    def _forget_up_to(self, revision: int) -> None:
        if revision > self._forgotten:
            del self._history[: revision - self._forgotten]
            self._forgotten = revision

    def _expire_in(self, lease: int, delay_s: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, self.lapse, lease)

    def _wake_watches(self) -> None:
        pulse, self._pulse = self._pulse, asyncio.Event()
        pulse.set()

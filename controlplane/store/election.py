"""Who leads: one key on a lease.

Two rules. A leader stops believing in itself before its lease can have lapsed, counted on its own clock from the moment
when the last renewal that succeeded was *sent*. And belief is not proof: every commit of the leader carries the fence,
the revision that created its key, so that even a leader that slept through everything cannot write.

    │◄────────────────── ttl_s ──────────────►│ etcd may lapse the lease
    sent ├── a third of it ──┤ sent …   │◄ 0.5 ►│ margin
                                       └ lost is set, unless a renewal succeeded
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import structlog

from controlplane.store import api, errors

LEADER_KEY = "/orch-election/leader"
TTL_S = 3
"""Unless somebody says otherwise. As long as that nobody leads when a leader is lost without a word."""
RENEWALS = 3
"""How often a lease is renewed in its life."""
MARGIN_S = 0.5
"""For clocks that run at different speeds, and for the time between a look at the clock and what is done after it."""

RESIGN_TIMEOUT_S = 1.0
RETRY_S = 0.3
"""Pause after the store did not answer."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who holds the key, where it serves, and since which revision (the term)."""

    identity: str
    address: str
    version: int


class Leadership:
    """Won by `Elector.campaign`. `lost` is set at the latest when the lease might lapse; nothing sets it back."""

    def __init__(self, store: api.Store, *, fence: api.Fence, lease: int, valid_until: float) -> None:
        self.fence = fence
        self.lost = asyncio.Event()
        self._store = store
        self._lease = lease
        self._valid_until = valid_until  # on the event loop's clock
        self._alarm = asyncio.get_running_loop().call_at(valid_until, self.lose)

    def holds(self) -> bool:
        """Right even when the event loop was stalled and `lost` could not be set in time."""
        return not self.lost.is_set() and asyncio.get_running_loop().time() < self._valid_until

    async def keep(self, renew_every_s: float) -> None:
        """Renew the lease until that fails for too long; then raise `Deposed`. Ends in no other way."""
        while self.holds():
            pause_s = renew_every_s if await self._renew() else RETRY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lost.wait(), pause_s)
        self.lose()
        raise errors.Deposed(self.fence.key, self.fence.version)

    async def guard(self) -> None:
        """Raise `Deposed` when somebody removes or replaces the leader's key while the lease is fine."""
        while self.holds():
            try:
                await self._until_replaced()
                self.lose()
            except errors.Temporary:
                await asyncio.sleep(RETRY_S)  # whether that ends the leadership is for `keep` to say
        raise errors.Deposed(self.fence.key, self.fence.version)

    async def resign(self) -> None:
        """Let the next one lead at once. When the store does not answer, the lease lapses by itself."""
        self.lose()
        with contextlib.suppress(errors.Temporary, TimeoutError):
            async with asyncio.timeout(RESIGN_TIMEOUT_S):
                await self._store.revoke(self._lease)

    def lose(self) -> None:
        """Stop believing; says nothing to the store."""
        self._alarm.cancel()
        self.lost.set()

    async def _until_replaced(self) -> None:
        async with contextlib.aclosing(watch_leader(self._store)) as leaders:
            async for leader in leaders:
                if leader is None or leader.version != self.fence.version:
                    return

    async def _renew(self) -> bool:
        """One attempt; never longer than the lease is believed in."""
        loop = asyncio.get_running_loop()
        sent = loop.time()
        try:
            async with asyncio.timeout_at(self._valid_until):
                ttl_s = await self._store.keep_alive(self._lease)
        except errors.LeaseExpired:
            self.lose()
        except (errors.Temporary, TimeoutError) as error:
            log.warning("election.not_renewed", reason=str(error), left_s=round(self._valid_until - loop.time(), 2))
        else:
            if self.holds():
                self._valid_until = sent + ttl_s - MARGIN_S
                self._alarm.cancel()
                self._alarm = loop.call_at(self._valid_until, self.lose)
                return True
        return False


class Elector:
    """One candidate. `identity` names this process, `address` is where agents and people reach it when it leads."""

    def __init__(
        self,
        store: api.Store,
        *,
        identity: str,
        address: str,
        ttl_s: int = TTL_S,
    ) -> None:
        assert ttl_s / RENEWALS < ttl_s - MARGIN_S, "a lease has to be renewed before it is given up"
        self._store = store
        self._value = json.dumps({"identity": identity, "address": address}).encode()
        self._identity = identity
        self._ttl_s = ttl_s

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[Leadership]:
        """Wait for the turn, lead inside the block, resign at its end.

        When leadership is lost meanwhile, the block is cancelled and `Deposed` comes out (in an exception group).
        """
        leadership = await self.campaign()
        try:
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(leadership.keep(self._ttl_s / RENEWALS)),
                    group.create_task(leadership.guard()),
                ]
                yield leadership
                for watcher in watchers:
                    watcher.cancel()
        finally:
            await leadership.resign()

    async def campaign(self) -> Leadership:
        """Wait until nobody leads and win; whoever calls this has to `keep` the leadership. Losing is no error."""
        while True:
            try:
                async with contextlib.aclosing(watch_leader(self._store)) as leaders:
                    async for leader in leaders:
                        leadership = None if leader else await self._run()
                        if leadership is not None:
                            return leadership
            except errors.Temporary as error:
                log.warning("election.no_store", reason=str(error), identity=self._identity)
                await asyncio.sleep(RETRY_S)

    async def _run(self) -> Leadership | None:
        """Try to write the key; None when somebody else was faster."""
        sent = asyncio.get_running_loop().time()
        lease = await self._store.grant_lease(self._ttl_s)
        put = api.Put(key=LEADER_KEY, value=self._value, expect=0, lease=lease)
        try:
            version = await self._store.commit([put])
        except errors.Conflict:
            await self._store.revoke(lease)
            return None
        except errors.LeaseExpired as error:
            raise errors.Unavailable(
                "the lease lapsed before the leader's key was written; the store is slow"
            ) from error
        log.info("election.won", identity=self._identity, term=version)
        fence = api.Fence(key=LEADER_KEY, version=version)
        return Leadership(self._store, fence=fence, lease=lease, valid_until=sent + self._ttl_s - MARGIN_S)


async def current_leader(store: api.Store) -> Leader | None:
    """Who leads now."""
    return _leader_in(await store.list(LEADER_KEY))


async def watch_leader(store: api.Store) -> AsyncGenerator[Leader | None, None]:
    """Who leads now, and then every change; raises `Temporary` when the store cannot be read."""
    while True:
        listing = await store.list(LEADER_KEY)
        yield _leader_in(listing)
        try:
            async with contextlib.aclosing(store.watch(LEADER_KEY, listing.revision)) as batches:
                async for batch in batches:
                    for event in batch.events[-1:]:  # only the last state counts
                        yield _leader(event.value, event.version)
        except errors.Compacted:
            log.info("election.look_again")


def _leader_in(listing: api.Listing) -> Leader | None:
    found = [entry for entry in listing.entries if entry.key == LEADER_KEY]
    return _leader(found[0].value, found[0].version) if found else None


def _leader(value: bytes | None, version: int) -> Leader | None:
    if value is None:
        return None
    try:
        fields = json.loads(value)
        return Leader(identity=fields["identity"], address=fields["address"], version=version)
    except (ValueError, KeyError, TypeError) as error:
        raise errors.Fatal(
            f"the value of {LEADER_KEY} (version {version}) does not name a leader: {error!r}; remove it with etcdctl"
        ) from error

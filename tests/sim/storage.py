"""The store as one simulated process sees it: over a network, with latency, cuts and answers that get lost."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Iterator, Sequence

from controlplane.store import api, errors, memory
from tests.sim.net import Network
from tests.support.virtualtime import OWNER

TIMEOUT_S = 2.0
LOST = 0.03
"""The chance that a request does not reach the store, and that an answer does not come back, on a bad day."""


@contextlib.contextmanager
def _at_the_store() -> Iterator[None]:
    """What has reached the store happens there, frozen though its sender may be; so do the timers of its leases."""
    token = OWNER.set("")
    try:
        yield
    finally:
        OWNER.reset(token)


class RemoteStore:
    """The `Store` protocol for the process `owner`. After `kill` nothing it does has an effect any more."""

    def __init__(self, inner: memory.MemoryStore, network: Network, owner: str, chance: random.Random) -> None:
        self._inner = inner
        self._network = network
        self._owner = owner
        self._chance = chance
        self._dead = False

    def kill(self) -> None:
        """The process is gone: whatever its last words were going to be, the store does not hear them."""
        self._dead = True

    async def list(self, prefix: str) -> api.Listing:
        await self._travel()
        return await self._inner.list(prefix)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[api.EventBatch, None]:
        await self._travel()
        async with contextlib.aclosing(self._inner.watch(prefix, after)) as batches:
            async for batch in batches:
                if self._out_of_reach():
                    yield api.EventBatch(events=(), revision=after, connected=False)
                while self._out_of_reach():  # noqa: ASYNC110 - nothing announces the end of a cut
                    await asyncio.sleep(0.1)
                await asyncio.sleep(self._chance.uniform(0.0, 0.002))
                after = batch.revision
                yield batch

    async def commit(self, changes: Sequence[api.Change], *, fence: api.Fence | None = None) -> int:
        await self._travel()
        with _at_the_store():
            revision = await self._inner.commit(changes, fence=fence)
        await self._return(ambiguous=True)
        return revision

    async def grant_lease(self, ttl_s: float) -> int:
        await self._travel()
        with _at_the_store():
            return await self._inner.grant_lease(ttl_s)

    async def keep_alive(self, lease: int) -> float:
        await self._travel()
        with _at_the_store():
            left_s = await self._inner.keep_alive(lease)
        await self._return(ambiguous=False)
        return left_s

    async def revoke(self, lease: int) -> None:
        await self._travel()
        with _at_the_store():
            await self._inner.revoke(lease)

    async def compact(self, revision: int) -> None:
        await self._travel()
        await self._inner.compact(revision)

    async def close(self) -> None:
        """The world closes the store itself."""

    def _out_of_reach(self) -> bool:
        return self._network.is_cut(self._owner, "store") or self._network.is_cut("store", self._owner)

    async def _travel(self) -> None:
        """The way there."""
        await asyncio.sleep(self._chance.uniform(0.0002, 0.002))
        if self._dead:
            raise errors.Unavailable(f"{self._owner} is dead")
        if self._is_lost() or self._network.is_cut(self._owner, "store"):
            await asyncio.sleep(TIMEOUT_S)
            raise errors.Unavailable("the store did not answer")

    async def _return(self, *, ambiguous: bool) -> None:
        """The way back, on which an answer may be lost."""
        await asyncio.sleep(self._chance.uniform(0.0001, 0.001))
        if self._is_lost() or self._network.is_cut("store", self._owner):
            await asyncio.sleep(TIMEOUT_S)
            raise errors.Unavailable("the store's answer was lost", ambiguous=ambiguous)

    def _is_lost(self) -> bool:
        return self._network.weather.lose > 0 and self._chance.random() < LOST

"""What the memory store can do beyond the protocol: the faults and looks that the simulation needs."""

import asyncio
import contextlib

import pytest

from controlplane.store import api, errors, memory
from tests.support import aio


def put(key: str, lease: int | None = None) -> api.Put:
    return api.Put(key=key, value=b"", lease=lease)


@aio.bounded(5)
async def test_every_revision_is_observed_lapses_included() -> None:
    seen: list[tuple[int, list[str], api.Fence | None]] = []
    store = memory.MemoryStore(
        on_commit=lambda revision, events, fence: seen.append((revision, [e.key for e in events], fence))
    )
    lease = await store.grant_lease(60)
    version = await store.commit([put("/leader", lease)])
    fence = api.Fence(key="/leader", version=version)
    await store.commit([put("/a"), put("/b")], fence=fence)
    await store.commit([api.Delete(key="/missing")])
    store.lapse(lease)
    store.lapse(lease)
    assert seen == [(2, ["/leader"], None), (3, ["/a", "/b"], fence), (4, ["/leader"], None)]
    await store.close()


@aio.bounded(5)
async def test_a_paused_watch_gets_everything_when_it_resumes() -> None:
    store = memory.MemoryStore()
    async with contextlib.aclosing(store.watch("/", 1)) as batches:
        await anext(batches)
        store.pause_watches()
        waiting = asyncio.ensure_future(anext(batches))
        await store.commit([put("/a")])
        await store.commit([put("/b")])
        assert not waiting.done()
        store.resume_watches()
        assert [event.key for event in (await waiting).events] == ["/a", "/b"]


@aio.bounded(5)
async def test_the_history_is_bounded() -> None:
    store = memory.MemoryStore(history_limit=10)
    for number in range(30):
        await store.commit([put(f"/{number}")])
    with pytest.raises(errors.Compacted):
        await anext(store.watch("/", 2))
    newest = (await store.list("/")).revision
    async with contextlib.aclosing(store.watch("/", newest - 4)) as batches:
        await anext(batches)
        assert len((await anext(batches)).events) == 4


@aio.bounded(5)
async def test_a_slow_watch_over_forgotten_history_says_so_in_the_middle() -> None:
    store = memory.MemoryStore(history_limit=10)
    async with contextlib.aclosing(store.watch("/", 1)) as batches:
        await anext(batches)
        store.pause_watches()
        for number in range(30):
            await store.commit([put(f"/{number}")])
        store.resume_watches()
        with pytest.raises(errors.Compacted):
            await anext(batches)

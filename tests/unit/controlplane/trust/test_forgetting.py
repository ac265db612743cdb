"""The leader forgets tokens that have been over for long; who leads no more writes nothing."""

import asyncio

import pytest

from controlplane.core.trust import over
from controlplane.store import api, errors
from controlplane.store.memory import MemoryStore
from controlplane.trust.forgetting import RETRY_S, Forgetting
from controlplane.trust.registry import CLUSTER, Registry
from protos.orch.v1 import trust_pb2 as pb
from tests.support import aio

LEADER = "/orch-leader/1"
START_MS = 1_800_000_000_000


def now_ms() -> int:
    """Virtual time."""
    return START_MS + int(asyncio.get_running_loop().time() * 1000)


def record(*tokens: pb.TokenRecord) -> api.Put:
    return api.Put(key=CLUSTER, value=pb.TrustRecord(cluster="c", tokens=tokens).SerializeToString())


async def stored(store: MemoryStore) -> list[str]:
    (entry,) = (await store.list(CLUSTER)).entries
    return [one.id for one in pb.TrustRecord.FromString(entry.value).tokens]


async def led(store: MemoryStore) -> api.Fence:
    return api.Fence(key=LEADER, version=await store.commit([api.Put(key=LEADER, value=b"cp1")]))


@aio.bounded(2 * over.KEPT_MS / 1000, virtual_time=True)
async def test_what_is_over_is_forgotten_when_its_week_is_over() -> None:
    """Without anything else that happens; a token that is made meanwhile is looked at, too."""
    store = MemoryStore()
    registry = Registry(store)
    good, ending = pb.TokenRecord(id="good", unlimited=True), pb.TokenRecord(id="ending", expires_at=now_ms() + 60_000)
    ending.unlimited = True
    fence = await led(store)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(registry.run()), group.create_task(Forgetting(registry, now_ms).run(fence))]
        await store.commit([record(good, ending)])
        await asyncio.sleep(60 + over.KEPT_MS / 1000 - 1)
        assert await stored(store) == ["good", "ending"]
        await asyncio.sleep(2)
        assert await stored(store) == ["good"]
        late = pb.TokenRecord(id="late", unlimited=True, expires_at=now_ms() - over.KEPT_MS)
        await store.commit([record(good, late)])
        await asyncio.sleep(1)
        assert await stored(store) == ["good"]
        for task in tasks:
            task.cancel()


@aio.bounded(30, virtual_time=True)
async def test_who_leads_no_more_forgets_nothing() -> None:
    """The store refuses it, and the leadership ends by that."""
    store = MemoryStore()
    registry = Registry(store)
    fence = await led(store)
    await led(store)
    await store.commit([api.Delete(key=LEADER)])
    await led(store)
    await store.commit([record(pb.TokenRecord(id="old", unlimited=True, expires_at=1))])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(registry.run())
        with pytest.raises(errors.Deposed):
            await Forgetting(registry, now_ms).run(fence)
        running.cancel()
    assert await stored(store) == ["old"]


@aio.bounded(30, virtual_time=True)
async def test_an_older_view_overwrites_nothing() -> None:
    """A token is made while news of it are late: it stays, and what is over goes once it is known."""
    store = MemoryStore()
    registry = Registry(store)
    fence = await led(store)
    old, new = (pb.TokenRecord(id=one, unlimited=True) for one in ("old", "new"))
    old.expires_at = 1
    async with asyncio.TaskGroup() as group:
        running = group.create_task(registry.run())
        await registry.loaded.wait()
        await store.commit([record(old)])
        await registry.catch_up()
        store.pause_watches()
        await store.commit([record(old, new)])
        forgetting = group.create_task(Forgetting(registry, now_ms).run(fence))
        await asyncio.sleep(2 * RETRY_S)
        assert await stored(store) == ["new"]
        for task in (running, forgetting):
            task.cancel()

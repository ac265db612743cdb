"""Endpoints that are kept from one question to the next are the same as those that are worked out anew."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from controlplane.api import endpoints
from controlplane.api.endpoints import EndpointsView
from controlplane.core import endpoint_table
from controlplane.store import api, memory, typed
from controlplane.store.cache import Cache
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.aio import bounded


@contextlib.asynccontextmanager
async def followed() -> AsyncIterator[tuple[memory.MemoryStore, Cache]]:
    """An empty store, and a cache that follows it."""
    store = memory.MemoryStore()
    cache = Cache(store)
    async with asyncio.TaskGroup() as group:
        follower = group.create_task(cache.run())
        await cache.wait_for(1, 5)
        yield store, cache
        follower.cancel()
    await store.close()


async def put(store: memory.MemoryStore, cache: Cache, *values: kinds.StoredObject) -> None:
    await cache.wait_for(await store.commit([typed.overwrite(value) for value in values]), 5)


async def remove(store: memory.MemoryStore, cache: Cache, value: kinds.StoredObject) -> None:
    await cache.wait_for(await store.commit([api.Delete(key=kinds.key(value))]), 5)


def service(name: str, port: int = 80, source: str = "") -> pb.Service:
    made = build.service(name)
    made.spec.template.container.ports.add(name="http", target=port, protocol=pb.PROTOCOL_TCP)
    if source:
        rule = made.spec.allow.add()
        setattr(rule, "from", source)
    return made


@pytest.mark.parametrize("seed", range(5))
@bounded(60)
async def test_what_is_kept_is_what_would_be_worked_out(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happened between two questions, and however much."""
    monkeypatch.setattr(endpoints, "PENDING_LIMIT", 12)
    chance = random.Random(seed)
    async with followed() as (store, cache):
        view = EndpointsView(cache)
        for _ in range(40):
            for _ in range(chance.choice([0, 1, 2, 9])):
                await change(chance, store, cache)
            state = cache.snapshot()
            assert view.of(state) == endpoint_table.endpoints_of(state)
        assert view.of(state), "there is something to compare"


async def change(chance: random.Random, store: memory.MemoryStore, cache: Cache) -> None:
    name = chance.choice(["web", "api", "db"])
    task = build.task(
        chance.randint(1, 3), node=chance.choice(["n1", "n2"]), of=name, ident=f"{name}-{chance.randint(1, 4)}"
    )
    task.status.address = f"10.112.1.{chance.randint(2, 9)}"
    match chance.randint(0, 6):
        case 0 | 1:
            made = service(name, chance.choice([80, 81]), chance.choice(["", "web", "api"]))
            await put(store, cache, made, build.revision(made))
        case 2 | 3:
            await put(store, cache, task)
        case 4:
            state = chance.choice([pb.NODE_STATE_READY, pb.NODE_STATE_DISCONNECTED, pb.NODE_STATE_DOWN])
            await put(store, cache, build.node(chance.choice(["n1", "n2"]), state=state))
        case 5:
            for gone in cache.snapshot().all(pb.Task).values():
                await remove(store, cache, gone)
                break
        case 6:
            for each in cache.snapshot().all(pb.Service).values():
                await remove(store, cache, each)
                break


@bounded(60)
async def test_only_what_has_changed_is_worked_out() -> None:
    """Of a hundred services; and the change of one is seen."""
    async with followed() as (store, cache):
        services = [service(f"s{number}") for number in range(100)]
        await put(store, cache, *services[:50], *map(build.revision, services[:50]))
        await put(store, cache, *services[50:], *map(build.revision, services[50:]))
        view = EndpointsView(cache)
        before = view.of(cache.snapshot())
        services[7].spec.template.container.ports[0].target = 8080
        services[7].meta.generation += 1
        await put(store, cache, services[7], build.revision(services[7], number=2))
        after = view.of(cache.snapshot())
        different = [key for key, value in after.items() if before[key] is not value]
        assert [after[key].meta.name for key in different] == ["s7"]
        assert [port.target for port in after[different[0]].status.ports] == [8080]

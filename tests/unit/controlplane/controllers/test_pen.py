"""The pen lets one planner write at a time, each on what the last one wrote, and forgets old history."""

import asyncio

import pytest

from controlplane.controllers import pen
from controlplane.core import plan
from controlplane.store import errors
from controlplane.store.api import Fence, Put
from controlplane.store.cache import Cache
from controlplane.store.memory import MemoryStore
from controlplane.store.snapshots import Snapshot
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.aio import bounded

LEADER = "/orch-election/leader"


def raise_replicas(snapshot: Snapshot) -> plan.Plan:
    """One replica more than what is there: two that see the same state would lose one."""
    service = snapshot.get(pb.Service, "web", namespace="default")
    changed = plan.copy(service) if service is not None else build.service(replicas=0, version=0)
    changed.spec.replicas += 1
    return plan.Plan(changes=(plan.Write(value=changed, why="one more"),))


@bounded(60, virtual_time=True)
async def test_each_planner_sees_what_the_one_before_has_written() -> None:
    store = MemoryStore()
    version = await store.commit([Put(key=LEADER, value=b"me")])
    cache = Cache(store)
    one = pen.Pen(store, cache, Fence(key=LEADER, version=version))
    async with asyncio.TaskGroup() as group:
        following = group.create_task(cache.run())
        await cache.wait_for(1, 5)
        await asyncio.gather(*(one.write(raise_replicas) for _ in range(20)))
        following.cancel()
    service = cache.snapshot().get(pb.Service, "web", namespace="default")
    assert service is not None
    assert service.spec.replicas == 20


@bounded(60, virtual_time=True)
async def test_old_history_is_compacted_by_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pen, "KEPT_REVISIONS", 10)
    store = MemoryStore()
    version = await store.commit([Put(key=LEADER, value=b"me")])
    cache = Cache(store)
    one = pen.Pen(store, cache, Fence(key=LEADER, version=version))
    async with asyncio.TaskGroup() as group:
        following = group.create_task(cache.run())
        await cache.wait_for(1, 5)
        for _ in range(30):
            await one.write(raise_replicas)
        following.cancel()
    with pytest.raises(errors.Compacted):
        await anext(store.watch("/orch/", version))
    assert (await anext(store.watch("/orch/", cache.revision - 5))).revision == cache.revision - 5

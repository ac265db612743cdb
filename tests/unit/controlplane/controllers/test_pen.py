"""The pen lets one planner write at a time, each on what the last one wrote, and forgets old history."""

import asyncio

import pytest

from controlplane.controllers import pen
from controlplane.core import plan
from controlplane.store import errors
from controlplane.store.api import MAX_COMMIT_BYTES, Fence, Put
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


def add_a_task(snapshot: Snapshot) -> plan.Plan:
    """A task with a name of its own, unless there is one: made twice, it conflicts with nothing."""
    if snapshot.all(pb.Task):
        return plan.NOTHING
    task = build.task(1)
    task.meta.version = 0
    return plan.Plan(changes=(plan.Write(value=task, why="slot 1 is free"),))


@bounded(60, virtual_time=True)
async def test_nobody_plans_again_before_what_was_written_is_seen() -> None:
    """A write that the cache did not show in time has happened all the same."""
    store = MemoryStore()
    version = await store.commit([Put(key=LEADER, value=b"me")])
    cache = Cache(store)
    one = pen.Pen(store, cache, Fence(key=LEADER, version=version))
    async with asyncio.TaskGroup() as group:
        following = group.create_task(cache.run())
        await cache.wait_for(version, 5)
        store.pause_watches()
        for _ in range(2):
            with pytest.raises(errors.Unavailable):
                await one.write(add_a_task)
        store.resume_watches()
        assert await one.write(add_a_task) == plan.NOTHING
        following.cancel()
    assert len(cache.snapshot().all(pb.Task)) == 1


@bounded(60, virtual_time=True)
async def test_what_no_commit_can_hold_is_left_out_and_everything_else_is_written() -> None:
    """Else one object would end this leader, and each that follows it."""

    def write_both(_snapshot: Snapshot) -> plan.Plan:
        large, small = build.node("n1"), build.node("n2")
        large.meta.version = small.meta.version = 0
        large.status.message = "x" * 2 * MAX_COMMIT_BYTES
        return plan.Plan(changes=(plan.Write(value=large, why="says much"), plan.Write(value=small, why="joined")))

    store = MemoryStore()
    version = await store.commit([Put(key=LEADER, value=b"me")])
    cache = Cache(store)
    one = pen.Pen(store, cache, Fence(key=LEADER, version=version))
    async with asyncio.TaskGroup() as group:
        following = group.create_task(cache.run())
        await cache.wait_for(1, 5)
        await one.write(write_both)
        await one.write(raise_replicas)
        following.cancel()
    assert [node.meta.name for node in cache.snapshot().all(pb.Node).values()] == ["n2"]
    assert cache.snapshot().get(pb.Service, "web", namespace="default") is not None

"""The pen lets one planner write at a time, each on what the last one wrote, and forgets old history."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A leader's pen, with what it writes to and what it sees."""

    store: MemoryStore
    cache: Cache
    pen: pen.Pen
    version: int
    """Of the store when the leader had been chosen."""


@contextlib.asynccontextmanager
async def leading() -> AsyncIterator[Desk]:
    """The cache follows the store meanwhile."""
    store = MemoryStore()
    version = await store.commit([Put(key=LEADER, value=b"me")])
    cache = Cache(store)
    async with asyncio.TaskGroup() as group:
        following = group.create_task(cache.run())
        await cache.wait_for(version, 5)
        fence = Fence(key=LEADER, version=version)
        yield Desk(store=store, cache=cache, pen=pen.Pen(store, cache, fence), version=version)
        following.cancel()


def raise_replicas(snapshot: Snapshot) -> plan.Plan:
    """One replica more than what is there: two that see the same state would lose one."""
    service = snapshot.get(pb.Service, "web", namespace="default")
    changed = plan.copy(service) if service is not None else build.service(replicas=0, version=0)
    changed.spec.replicas += 1
    return plan.Plan(changes=(plan.Write(value=changed, why="one more"),))


@bounded(60, virtual_time=True)
async def test_each_planner_sees_what_the_one_before_has_written() -> None:
    async with leading() as desk:
        await asyncio.gather(*(desk.pen.write(raise_replicas) for _ in range(20)))
    service = desk.cache.snapshot().get(pb.Service, "web", namespace="default")
    assert service is not None
    assert service.spec.replicas == 20


@bounded(60, virtual_time=True)
async def test_old_history_is_compacted_by_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pen, "KEPT_REVISIONS", 10)
    async with leading() as desk:
        for _ in range(30):
            await desk.pen.write(raise_replicas)
    with pytest.raises(errors.Compacted):
        await anext(desk.store.watch("/orch/", desk.version))
    assert (await anext(desk.store.watch("/orch/", desk.cache.revision - 5))).revision == desk.cache.revision - 5


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
    async with leading() as desk:
        desk.store.pause_watches()
        for _ in range(2):
            with pytest.raises(errors.Unavailable):
                await desk.pen.write(add_a_task)
        desk.store.resume_watches()
        assert await desk.pen.write(add_a_task) == plan.NOTHING
    assert len(desk.cache.snapshot().all(pb.Task)) == 1


@bounded(60, virtual_time=True)
async def test_what_no_commit_can_hold_is_left_out_and_everything_else_is_written() -> None:
    """Else one object would end this leader, and each that follows it."""

    def write_both(_snapshot: Snapshot) -> plan.Plan:
        large, small = build.node("n1"), build.node("n2")
        large.meta.version = small.meta.version = 0
        large.status.message = "x" * 2 * MAX_COMMIT_BYTES
        return plan.Plan(changes=(plan.Write(value=large, why="says much"), plan.Write(value=small, why="joined")))

    async with leading() as desk:
        await desk.pen.write(write_both)
        await desk.pen.write(raise_replicas)
    assert [node.meta.name for node in desk.cache.snapshot().all(pb.Node).values()] == ["n2"]
    assert desk.cache.snapshot().get(pb.Service, "web", namespace="default") is not None

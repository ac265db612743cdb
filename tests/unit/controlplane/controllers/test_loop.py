"""The loop looks at every key once, again after a conflict, and at the moment that a planner asked for."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from controlplane.controllers.loop import Loop
from controlplane.controllers.pen import Pen
from controlplane.core import plan
from controlplane.store import errors
from controlplane.store.api import Fence, Put
from controlplane.store.cache import Cache
from controlplane.store.memory import MemoryStore
from controlplane.store.snapshots import Change, Snapshot
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.aio import bounded, until

LEADER = "/orch-election/leader"


class Counting:
    """A planner that notes what it was asked, and answers what the test put there."""

    name = "counting"

    def __init__(self, answer: Callable[[Snapshot, frozenset[str]], plan.Plan] = lambda _s, _k: plan.NOTHING) -> None:
        self.asked: list[frozenset[str]] = []
        self.stored: list[frozenset[str]] = []
        self._answer = answer

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        del snapshot
        return [change.key]

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        return snapshot.all(pb.Service)

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:
        del now_ms
        self.asked.append(keys)
        return self._answer(snapshot, keys)

    def done(self, keys: frozenset[str]) -> None:
        self.stored.append(keys)


def now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


@contextlib.asynccontextmanager
async def running(
    planner: Counting, store: MemoryStore | None = None
) -> AsyncIterator[tuple[Loop, MemoryStore, Cache]]:
    """The planner in a loop over a memory store that it leads."""
    store = store or MemoryStore()
    version = await store.commit([Put(key=LEADER, value=b"me")])
    cache = Cache(store)
    pen = Pen(store, cache, Fence(key=LEADER, version=version))
    loop = Loop(planner, pen, now_ms, random.Random(1))
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(cache.run()), group.create_task(loop.run())]
        await cache.wait_for(1, 5)
        yield loop, store, cache
        for task in work:
            task.cancel()


class SlowStore(MemoryStore):
    """One whose answers take ten milliseconds."""

    async def commit(self, *args: Any, **kwargs: Any) -> int | None:
        await asyncio.sleep(0.01)
        return await super().commit(*args, **kwargs)


@bounded(60, virtual_time=True)
async def test_a_planner_rests_after_a_write_and_looks_at_what_came_meanwhile_together() -> None:
    """The first is looked at at once."""
    names = itertools.count()
    planner = Counting(
        lambda _s, _k: plan.Plan(changes=(plan.Write(value=build.service(f"s{next(names)}", version=0), why="x"),))
    )
    async with running(planner, SlowStore()) as (loop, _, _):
        planner.asked.clear()
        clock = asyncio.get_running_loop().time
        began = clock()
        loop.wake(["a"])
        await until(lambda: len(planner.stored) == 1, what="the first plan")
        assert clock() - began <= 0.02
        for key in ("b", "c", "d"):
            loop.wake([key])
            await asyncio.sleep(0.002)
        assert len(planner.asked) == 1, "it rests twice as long as its turn took"
        await until(lambda: len(planner.asked) == 2, what="the second plan")
        assert planner.asked[1] == frozenset("bcd")
        assert 0.03 <= clock() - began < 0.05


@bounded(60, virtual_time=True)
async def test_what_is_woken_many_times_is_looked_at_once() -> None:
    planner = Counting()
    async with running(planner) as (loop, _, _):
        for _ in range(10):
            loop.wake(["a", "b"])
        await until(lambda: bool(planner.stored), what="a stored plan")
        assert planner.asked == [frozenset({"a", "b"})]


@bounded(60, virtual_time=True)
async def test_a_conflict_brings_the_keys_back() -> None:
    def write(snapshot: Snapshot, _keys: frozenset[str]) -> plan.Plan:
        service = snapshot.get(pb.Service, "web", namespace="default")
        value = plan.copy(service) if service is not None and len(planner.asked) > 1 else build.service(version=99)
        return plan.Plan(changes=(plan.Write(value=value, why="test"),))

    planner = Counting(write)
    async with running(planner) as (loop, store, cache):
        fresh = build.service(version=0)
        revision = await store.commit([Put(key="/orch/service/default/web", value=fresh.SerializeToString(), expect=0)])
        await cache.wait_for(revision, 5)
        loop.wake(["default/web"])
        await until(lambda: bool(planner.stored), what="a stored plan")
        assert planner.asked == [frozenset({"default/web"})] * 2


@bounded(60, virtual_time=True)
async def test_a_planner_is_asked_again_at_the_moment_that_it_named() -> None:
    def once(_snapshot: Snapshot, _keys: frozenset[str]) -> plan.Plan:
        return plan.Plan(wake_at=now_ms() + 5_000) if len(planner.asked) == 1 else plan.NOTHING

    planner = Counting(once)
    async with running(planner) as (loop, _, _):
        loop.wake(["a"])
        await until(lambda: len(planner.asked) == 2, what="a second look", timeout_s=20)
        assert 5.0 <= asyncio.get_running_loop().time() < 5.2


@bounded(60, virtual_time=True)
async def test_a_deposed_leader_writes_nothing_and_stops() -> None:
    def write(_snapshot: Snapshot, _keys: frozenset[str]) -> plan.Plan:
        return plan.Plan(changes=(plan.Write(value=build.service(version=0), why="test"),))

    planner, store, ended = Counting(write), MemoryStore(), []
    try:
        async with running(planner, store) as (loop, _, _):
            await store.commit([Put(key=LEADER, value=b"another", expect=None)])
            await _replace_leader(store)
            loop.wake(["a"])
            await asyncio.sleep(30)
    except* errors.Deposed as deposed:
        ended.append(deposed)
    assert ended
    assert not (await store.list("/orch/")).entries


async def _replace_leader(store: MemoryStore) -> None:
    """Another instance's key in the place of ours: same name, made anew."""
    lease = await store.grant_lease(3)
    await store.commit([Put(key=LEADER, value=b"another", lease=lease)])
    await store.revoke(lease)
    await store.commit([Put(key=LEADER, value=b"another", expect=0)])

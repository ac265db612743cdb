"""What a watch tells when its reader is slow, or when the cache has lost its place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator

import pytest

from controlplane.api import watch as watching
from controlplane.core import request_errors as errors
from controlplane.store import api, cache, feed, memory, typed
from protos import kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import aio

SERVICES = pb.WatchRequest(selections=[pb.ListRequest(kind="service")])
A_MOMENT_S = 5


class ForgetfulCache(cache.Cache):
    """Its subscriptions hold two changes; more become a resync."""

    @contextlib.contextmanager
    def subscribe(self, only: Collection[str] = (), *, limit: int = 2) -> Iterator[feed.Subscription]:
        with super().subscribe(only, limit=limit) as subscription:
            yield subscription


class Reader:
    """Takes what a watch sends, as lines; `gate` lets it read."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.told: asyncio.Queue[str] = asyncio.Queue(1000)

    async def send(self, event: pb.WatchResponse) -> None:
        await self.gate.wait()
        what = str(event.WhichOneof("event"))
        name = "" if what == "synced" else kinds.unwrap(getattr(event, what)).meta.name
        self.told.put_nowait(f"{what} {name}".strip())

    async def next(self, number: int) -> list[str]:
        return [await aio.within(A_MOMENT_S, self.told.get(), what="the watch tells more") for _ in range(number)]


def service(name: str, stack: str = "") -> objects_pb2.Service:
    return objects_pb2.Service(meta=objects_pb2.Meta(name=name, namespace="default", stack=stack))


@contextlib.asynccontextmanager
async def watched(kind: type[cache.Cache]) -> AsyncIterator[tuple[memory.MemoryStore, cache.Cache, Reader]]:
    """A watch of all services that has told what was there: the service `a`."""
    store = memory.MemoryStore()
    known, reader = kind(store), Reader()
    await put(store, known, service("a"), wait=False)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(known.run())]
        await known.wait_for(1, A_MOMENT_S)
        tasks.append(group.create_task(watching.watch(known, SERVICES, reader.send)))
        assert await reader.next(2) == ["changed a", "synced"]
        yield store, known, reader
        for task in tasks:
            task.cancel()
    await store.close()


async def put(store: memory.MemoryStore, known: cache.Cache, value: objects_pb2.Service, *, wait: bool = True) -> None:
    revision = await store.commit([typed.overwrite(value)])
    if wait:
        await known.wait_for(revision, A_MOMENT_S)


@aio.bounded(20)
async def test_a_reader_that_fell_behind_is_told_the_difference_and_nothing_twice() -> None:
    async with watched(ForgetfulCache) as (store, known, reader):
        reader.gate.clear()
        for number in range(5):
            await put(store, known, service("b", stack=str(number)))
        await put(store, known, service("c"))
        revision = await store.commit([api.Delete(key=kinds.key(service("a")))])
        await known.wait_for(revision, A_MOMENT_S)
        reader.gate.set()
        told = await reader.next(3)
        assert told[0] == "changed b", "this one was on its way already"
        while told[-1] != "changed c":
            told += await reader.next(1)
        assert told.count("changed b") <= 3
        assert told.count("deleted a") == 1
        await put(store, known, service("d"))
        assert await reader.next(1) == ["changed d"]


@aio.bounded(20)
async def test_a_gap_in_the_stores_history_does_not_show() -> None:
    async with watched(cache.Cache) as (store, known, reader):
        store.pause_watches()
        await put(store, known, service("b"), wait=False)
        revision = await store.commit([api.Delete(key=kinds.key(service("a")))])
        await store.compact(revision)
        store.resume_watches()
        assert sorted(await reader.next(2)) == ["changed b", "deleted a"]


@pytest.mark.parametrize(
    ("selections", "message"),
    [
        ([], "1 to 32 selections"),
        ([pb.ListRequest(kind="service")] * 33, "1 to 32 selections"),
        ([pb.ListRequest(kind="pod")], "no kind 'pod'"),
        ([pb.ListRequest(kind="node", service="web")], "cannot be selected by service"),
        ([pb.ListRequest(kind="service", node="n1")], "cannot be selected by node"),
    ],
)
def test_selections_that_make_no_sense_are_refused(selections: list[pb.ListRequest], message: str) -> None:
    async def ask() -> None:
        known = cache.Cache(memory.MemoryStore())
        with pytest.raises(errors.Invalid, match=message):
            await watching.watch(known, pb.WatchRequest(selections=selections), Reader().send)

    asyncio.run(ask())

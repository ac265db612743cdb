"""The watch cache over the memory store."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import pytest

from controlplane.store import api, cache, errors, memory, snapshots, typed
from protos.orch.v1 import objects_pb2 as pb
from tests.support import aio


def task(name: str, *, service: str = "web", node: str = "") -> pb.Task:
    return pb.Task(meta=pb.Meta(id=name, name=name, namespace="default"), service=service, node_id=node)


def told(changes: Sequence[snapshots.Change]) -> list[tuple[str, bool, bool]]:
    """Name, whether it was there before, whether it is there now."""
    return [(change.key.rpartition("/")[2], change.before is not None, change.after is not None) for change in changes]


@contextlib.asynccontextmanager
async def running(store: api.Store) -> AsyncIterator[cache.Cache]:
    made = cache.Cache(store)
    runner = asyncio.ensure_future(made.run())
    try:
        await made.wait_for(1, 5)
        yield made
    finally:
        runner.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await runner


class Unreliable(memory.MemoryStore):
    """A store behind a link that can be cut; a watch notices at its next batch, and loses it."""

    is_cut = False

    async def list(self, prefix: str) -> api.Listing:
        self._check_link()
        return await super().list(prefix)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[api.EventBatch, None]:
        async with contextlib.aclosing(super().watch(prefix, after)) as batches:
            async for batch in batches:
                self._check_link()
                yield batch

    def _check_link(self) -> None:
        if self.is_cut:
            raise errors.Unavailable("the link is cut")


@aio.bounded(60, virtual_time=True)
async def test_a_cache_shows_what_was_there_and_what_comes() -> None:
    store = memory.MemoryStore()
    await store.commit([typed.put(task("old"))])
    async with running(store) as view:
        revision = await store.commit([typed.put(task("new", node="n1"))])
        snapshot = await view.wait_for(revision, 5)
        assert snapshot.revision == revision == view.revision
        assert [each.meta.id for each in snapshot.tasks_on("n1").values()] == ["new"]
        assert {each.meta.version for each in snapshot.all(pb.Task).values()} == {revision - 1, revision}
        old = snapshot.get(pb.Task, "old", namespace="default")
        assert old
        removed = await store.commit([typed.delete(old)])
        assert len((await view.wait_for(removed, 5)).all(pb.Task)) == 1
        assert len(snapshot.all(pb.Task)) == 2, "a snapshot changed"


@aio.bounded(60, virtual_time=True)
async def test_a_revision_that_touches_no_object_is_waited_for_as_well() -> None:
    store = memory.MemoryStore()
    async with running(store) as view:
        revision = await store.commit([api.Put(key="/orch-election/leader", value=b"{}")])
        assert (await view.wait_for(revision, 5)).revision == revision


@aio.bounded(60, virtual_time=True)
async def test_waiting_for_a_revision_that_does_not_come_is_an_error_with_both_numbers() -> None:
    async with running(memory.MemoryStore()) as view:
        with pytest.raises(errors.Unavailable, match="at revision 1 and did not reach 99 within 2 s"):
            await view.wait_for(99, 2)


@aio.bounded(60, virtual_time=True)
async def test_a_subscription_starts_with_a_resync_and_goes_on_with_changes_in_order() -> None:
    store = memory.MemoryStore()
    async with running(store) as view, contextlib.AsyncExitStack() as stack:
        subscription = stack.enter_context(view.subscribe(["task"]))
        assert (await subscription.take()).resync
        await store.commit([typed.put(task("a")), typed.put(pb.Service(meta=pb.Meta(name="s", namespace="default")))])
        revision = await store.commit([typed.overwrite(task("a", node="n1")), typed.put(task("b"))])
        await view.wait_for(revision, 5)
        taken = await subscription.take()
        assert not taken.resync
        assert told(taken.changes) == [("a", False, True), ("a", True, True), ("b", False, True)]


@aio.bounded(60, virtual_time=True)
async def test_a_reader_that_fell_behind_is_told_to_look_at_everything() -> None:
    store = memory.MemoryStore()
    async with running(store) as view:
        with view.subscribe(limit=3) as slow, view.subscribe(limit=100) as fast:
            assert (await slow.take()).resync
            assert (await fast.take()).resync
            for number in range(5):
                await view.wait_for(await store.commit([typed.put(task(f"t{number}"))]), 5)
            taken = await slow.take()
            assert taken.resync
            assert not taken.changes
            assert len((await fast.take()).changes) == 5
            await view.wait_for(await store.commit([typed.put(task("t9"))]), 5)
            assert told((await slow.take()).changes) == [("t9", False, True)]


@aio.bounded(60, virtual_time=True)
async def test_a_lost_link_makes_reads_stale_and_nothing_is_missed_when_it_returns() -> None:
    store = Unreliable()
    async with running(store) as view:
        await aio.until(lambda: view.connected, what="connected")
        with view.subscribe() as subscription:
            await subscription.take()
            assert view.stale_for_s() == 0
            store.is_cut = True
            await store.commit([typed.put(task("a"))])
            await aio.until(lambda: not view.connected, what="disconnected")
            await asyncio.sleep(3)
            assert (view.stale_for_s() or 0) >= 3
            assert not view.snapshot().all(pb.Task)
            revision = await store.commit([typed.put(task("b"))])
            store.is_cut = False
            await view.wait_for(revision, 5)
            assert view.connected
            assert told((await subscription.take()).changes) == [("a", False, True), ("b", False, True)]


@aio.bounded(60, virtual_time=True)
async def test_what_was_missed_behind_a_compaction_is_told_as_changes() -> None:
    store = Unreliable()
    first = await store.commit([typed.put(task("stays")), typed.put(task("goes")), typed.put(task("moves"))])
    async with running(store) as view:
        with view.subscribe() as subscription:
            await subscription.take()
            await aio.until(lambda: view.connected, what="connected")
            kept = view.snapshot().get(pb.Task, "stays", namespace="default")
            store.is_cut = True
            goes = view.snapshot().get(pb.Task, "goes", namespace="default")
            assert goes
            await store.commit([typed.delete(goes), typed.put(task("comes"))])
            last = await store.commit(
                [api.Put(key="/orch/task/default/moves", value=typed.encode(task("moves", node="n1")), expect=first)]
            )
            await store.compact(last)
            await aio.until(lambda: not view.connected, what="disconnected")
            store.is_cut = False
            snapshot = await view.wait_for(last, 5)
            assert told((await subscription.take()).changes) == [
                ("goes", True, False),
                ("comes", False, True),
                ("moves", True, True),
            ]
            assert snapshot.get(pb.Task, "stays", namespace="default") is kept
            assert [each.meta.id for each in snapshot.tasks_on("n1").values()] == ["moves"]


@aio.bounded(60, virtual_time=True)
async def test_a_cache_started_without_a_store_waits_for_it() -> None:
    store = Unreliable()
    store.is_cut = True
    view = cache.Cache(store)
    runner = asyncio.ensure_future(view.run())
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        await view.wait_for(1, 2)
    assert view.stale_for_s() is None
    with view.subscribe() as subscription:
        store.is_cut = False
        await view.wait_for(1, 5)
        assert (await subscription.take()).resync
    runner.cancel()


@aio.bounded(60, virtual_time=True)
async def test_an_object_that_cannot_be_read_stops_the_cache_rather_than_vanish() -> None:
    store = memory.MemoryStore()
    await store.commit([api.Put(key="/orch/task/default/a", value=b"\xff\xff")])
    with pytest.raises(errors.Fatal, match="/orch/task/default/a"):
        await cache.Cache(store).run()

"""Watches: every change, once, in order, whatever happens in between."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from controlplane.store import api, errors
from tests.contract.store.conftest import Backend
from tests.support import aio


def put(key: str, value: bytes = b"value", expect: int | None = None, lease: int | None = None) -> api.Put:
    return api.Put(key=key, value=value, expect=expect, lease=lease)


async def collect(batches: AsyncIterator[api.EventBatch], count: int) -> list[api.Event]:
    """The next `count` events; the batches' own promises are checked on the way."""
    events: list[api.Event] = []
    revision = 0
    while len(events) < count:
        batch = await anext(batches)
        assert batch.revision >= revision
        assert all(revision < event.version <= batch.revision for event in batch.events)
        revision = batch.revision
        events.extend(batch.events)
    assert [event.version for event in events] == sorted(event.version for event in events)
    return events


@aio.bounded(10)
async def test_a_watch_begins_with_a_batch_that_says_it_stands(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        revision = (await store.list(prefix)).revision
        async with contextlib.aclosing(store.watch(prefix, revision)) as batches:
            assert await anext(batches) == api.EventBatch(events=(), revision=revision)


@aio.bounded(10)
async def test_a_watch_tells_what_came_before_and_after_it_began(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        start = (await store.list(prefix)).revision
        first = await store.commit([put(f"{prefix}a", b"1"), put(f"{prefix}b", b"2")])
        async with contextlib.aclosing(store.watch(prefix, start)) as batches:
            assert await collect(batches, 2) == [
                api.Event(key=f"{prefix}a", value=b"1", version=first),
                api.Event(key=f"{prefix}b", value=b"2", version=first),
            ]
            await store.commit([put(f"{prefix[:-1]}-beside")])
            second = await store.commit([api.Delete(key=f"{prefix}a"), put(f"{prefix}b", b"3")])
            assert sorted(await collect(batches, 2), key=lambda event: event.key) == [
                api.Event(key=f"{prefix}a", value=None, version=second),
                api.Event(key=f"{prefix}b", value=b"3", version=second),
            ]


@aio.bounded(10)
async def test_a_watch_from_a_revision_does_not_repeat_it(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        first = await store.commit([put(f"{prefix}a")])
        second = await store.commit([put(f"{prefix}b")])
        async with contextlib.aclosing(store.watch(prefix, first)) as batches:
            assert await collect(batches, 1) == [api.Event(key=f"{prefix}b", value=b"value", version=second)]


@aio.bounded(20)
async def test_a_slow_watch_loses_nothing(backend: Backend, prefix: str) -> None:
    """More revisions than either implementation puts into one batch, with several events each."""
    async with backend.store() as store:
        start = (await store.list(prefix)).revision
        async with contextlib.aclosing(store.watch(prefix, start)) as batches:
            await anext(batches)
            for first in range(0, 1500, 50):
                await asyncio.gather(
                    *(
                        store.commit([put(f"{prefix}{i}", b"a"), put(f"{prefix}{i}/", b"b")])
                        for i in range(first, first + 50)
                    )
                )
            events = await collect(batches, 3000)
        assert {event.key for event in events} == {f"{prefix}{i}{end}" for i in range(1500) for end in ("", "/")}
        versions = [event.version for event in events]
        assert versions[::2] == versions[1::2], "what was committed together came apart"
        # Not each one: a commit that is sent again, since nobody answered for a while, may cost a receipt more.
        assert all(earlier < later for earlier, later in itertools.pairwise([start, *versions[::2]]))


@aio.bounded(10)
async def test_two_watches_see_the_same(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        start = (await store.list(prefix)).revision
        async with (
            contextlib.aclosing(store.watch(prefix, start)) as one,
            contextlib.aclosing(store.watch(f"{prefix}a", start)) as other,
        ):
            await store.commit([put(f"{prefix}b")])
            await store.commit([put(f"{prefix}a")])
            assert (await collect(one, 2))[1:] == await collect(other, 1)


@aio.bounded(10)
async def test_a_watch_of_compacted_history_says_so(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        old = await store.commit([put(f"{prefix}a")])
        deleted = await store.commit([api.Delete(key=f"{prefix}a")])
        await store.compact(deleted)
        with pytest.raises(errors.Compacted):
            async with contextlib.aclosing(store.watch(prefix, old)) as batches:
                await collect(batches, 1)
        newer = await store.commit([put(f"{prefix}b")])
        async with contextlib.aclosing(store.watch(prefix, deleted)) as batches:
            assert await collect(batches, 1) == [api.Event(key=f"{prefix}b", value=b"value", version=newer)]


@aio.bounded(10)
async def test_compacting_twice_is_no_error_and_the_future_cannot_be_compacted(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        revision = await store.commit([put(f"{prefix}a")])
        await store.compact(revision)
        await store.compact(revision)
        with pytest.raises(errors.Fatal, match="compact"):
            await store.compact(revision + 100)
        assert [entry.key for entry in (await store.list(prefix)).entries] == [f"{prefix}a"]


@aio.bounded(10)
async def test_a_watch_of_the_future_belongs_to_another_history(backend: Backend, prefix: str) -> None:
    """As after a restored backup: the store has to be listed again, not waited for."""
    async with backend.store() as store:
        revision = (await store.list(prefix)).revision
        with pytest.raises(errors.Compacted):
            async with contextlib.aclosing(store.watch(prefix, revision + 1000)) as batches:
                await collect(batches, 1)


@aio.bounded(10)
async def test_closing_the_store_ends_its_watches(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        revision = (await store.list(prefix)).revision
        async with contextlib.aclosing(store.watch(prefix, revision)) as batches:
            await anext(batches)
            pending = asyncio.ensure_future(anext(batches))
            await store.close()
            with pytest.raises(errors.Fatal, match="closed"):
                await pending

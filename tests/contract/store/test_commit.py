"""Commits: all or nothing, only over what was read, only while the leader leads."""

import asyncio

import pytest

from controlplane.store import api, errors, etcd
from tests.contract.store.conftest import Backend
from tests.support import aio


def put(key: str, value: bytes = b"value", expect: int | None = None, lease: int | None = None) -> api.Put:
    return api.Put(key=key, value=value, expect=expect, lease=lease)


async def contents(store: api.Store, prefix: str) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await store.list(prefix)).entries}


@aio.bounded(10)
async def test_a_commit_returns_the_revision_that_its_entries_carry(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        before = (await store.list(prefix)).revision
        revision = await store.commit([put(f"{prefix}a", b"1"), put(f"{prefix}b", b"2")])
        listing = await store.list(prefix)
        assert revision == before + 1 == listing.revision
        assert listing.entries == (
            api.Entry(key=f"{prefix}a", value=b"1", version=revision),
            api.Entry(key=f"{prefix}b", value=b"2", version=revision),
        )


@aio.bounded(10)
async def test_a_version_that_does_not_hold_is_a_conflict_that_names_the_keys(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        first = await store.commit([put(f"{prefix}a"), put(f"{prefix}b"), put(f"{prefix}c")])
        await store.commit([put(f"{prefix}a", b"newer", expect=first)])
        with pytest.raises(errors.Conflict) as raised:
            await store.commit(
                [
                    put(f"{prefix}a", b"stale", expect=first),
                    put(f"{prefix}b", b"fresh", expect=first),
                    api.Delete(key=f"{prefix}missing", expect=first),
                ]
            )
        assert raised.value.keys == (f"{prefix}a", f"{prefix}missing")
        assert await contents(store, prefix) == {f"{prefix}a": b"newer", f"{prefix}b": b"value", f"{prefix}c": b"value"}


@aio.bounded(10)
async def test_expecting_zero_creates_once(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        created = await store.commit([put(f"{prefix}a", b"first", expect=0)])
        with pytest.raises(errors.Conflict):
            await store.commit([put(f"{prefix}a", b"second", expect=0)])
        await store.commit([api.Delete(key=f"{prefix}a", expect=created)])
        await store.commit([put(f"{prefix}a", b"third", expect=0)])
        assert await contents(store, prefix) == {f"{prefix}a": b"third"}


@aio.bounded(10)
async def test_of_many_writers_over_one_version_exactly_one_wins(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        version = await store.commit([put(f"{prefix}a", b"start")])
        results = await asyncio.gather(
            *(store.commit([put(f"{prefix}a", b"%d" % i, expect=version)]) for i in range(20)), return_exceptions=True
        )
        winners = [i for i, result in enumerate(results) if isinstance(result, int)]
        assert len(winners) == 1
        assert sum(isinstance(result, errors.Conflict) for result in results) == 19
        assert await contents(store, prefix) == {f"{prefix}a": b"%d" % winners[0]}


@aio.bounded(10)
async def test_a_delete_removes_and_a_missing_key_is_no_error(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        revision = await store.commit([put(f"{prefix}a"), put(f"{prefix}b")])
        assert await store.commit([api.Delete(key=f"{prefix}a")]) == revision + 1
        await store.commit([api.Delete(key=f"{prefix}a")])
        assert await contents(store, prefix) == {f"{prefix}b": b"value"}


@aio.bounded(10)
async def test_a_deposed_leader_cannot_write(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        key = f"{prefix}leader"
        elected = await store.commit([put(key, b"one", expect=0)])
        fence = api.Fence(key=key, version=elected)
        await store.commit([put(f"{prefix}a", b"by one")], fence=fence)
        await store.commit([put(key, b"one, at another address")])
        await store.commit([put(f"{prefix}b", b"the key still stands")], fence=fence)
        await store.commit([api.Delete(key=key)])
        with pytest.raises(errors.Deposed):
            await store.commit([put(f"{prefix}a", b"nobody leads")], fence=fence)
        await store.commit([put(key, b"two", expect=0)])
        with pytest.raises(errors.Deposed, match=key):
            await store.commit([put(f"{prefix}a", b"late", expect=0)], fence=fence)
        assert (await contents(store, prefix))[f"{prefix}a"] == b"by one"


@aio.bounded(10)
async def test_an_empty_commit_asks_whether_the_fence_stands(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        elected = await store.commit([put(f"{prefix}leader", expect=0)])
        assert await store.commit([], fence=api.Fence(key=f"{prefix}leader", version=elected)) == elected
        with pytest.raises(errors.Deposed):
            await store.commit([], fence=api.Fence(key=f"{prefix}leader", version=elected - 1))


@aio.bounded(10)
async def test_as_many_operations_as_promised_fit_and_one_more_is_refused(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        elected = await store.commit([put(f"{prefix}leader", expect=0)])
        fence = api.Fence(key=f"{prefix}leader", version=elected)
        guarded = [put(f"{prefix}{i:03}", expect=0) for i in range(api.MAX_OPERATIONS)]
        await store.commit(guarded[:-1], fence=fence)
        assert len((await store.list(prefix)).entries) == api.MAX_OPERATIONS
        with pytest.raises(errors.Conflict) as raised:
            await store.commit(guarded)
        assert len(raised.value.keys) == api.MAX_OPERATIONS - 1
        with pytest.raises(errors.Fatal, match=f"{api.MAX_OPERATIONS} operations"):
            await store.commit(guarded, fence=fence)
        with pytest.raises(errors.Fatal, match=f"{api.MAX_OPERATIONS} operations"):
            await store.commit([*guarded, put(f"{prefix}more")])


@aio.bounded(10)
async def test_a_commit_that_is_too_large_or_names_a_key_twice_is_refused(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        await store.commit([put(f"{prefix}large", b"x" * (api.MAX_COMMIT_BYTES - 100))])
        with pytest.raises(errors.Fatal, match="bytes"):
            await store.commit([put(f"{prefix}larger", b"x" * api.MAX_COMMIT_BYTES)])
        with pytest.raises(errors.Fatal, match="twice"):
            await store.commit([put(f"{prefix}a"), api.Delete(key=f"{prefix}a")])
        assert list(await contents(store, prefix)) == [f"{prefix}large"]


@aio.bounded(30)
async def test_a_listing_is_complete_ordered_and_of_one_revision(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        keys = [f"{prefix}{i:05}" for i in range(2500)]
        for start in range(0, len(keys), api.MAX_OPERATIONS):
            await store.commit([put(key, b"old") for key in keys[start : start + api.MAX_OPERATIONS]])
        await store.commit([put(f"{prefix[:-1]}0beside")])

        async def disturb() -> None:
            """Overwrite the last keys while the listing turns its pages."""
            for _ in range(20):
                await store.commit([put(keys[0], b"new"), put(keys[-1], b"new")])

        listing, _ = await asyncio.gather(store.list(prefix), disturb())
        assert [entry.key for entry in listing.entries] == keys
        assert listing.entries[0].value == listing.entries[-1].value, "first and last page are of different revisions"
        assert max(entry.version for entry in listing.entries) <= listing.revision


@aio.bounded(30)
async def test_a_listing_overtaken_by_compaction_is_complete_nevertheless(
    backend: Backend, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd, "PAGE_ENTRIES", 5)
    async with backend.store() as store:
        keys = [f"{prefix}{i:03}" for i in range(500)]
        for start in range(0, len(keys), 100):
            await store.commit([put(key) for key in keys[start : start + 100]])

        async def overtake() -> None:
            for _ in range(etcd.LISTING_TRIES - 1):  # each can overtake one try
                await store.compact(await store.commit([put(f"{prefix[:-1]}-beside")]))

        listing, _ = await asyncio.gather(store.list(prefix), overtake())
        assert [entry.key for entry in listing.entries] == keys


@aio.bounded(10)
async def test_a_closed_store_refuses_calls(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        await store.close()
        with pytest.raises(errors.Fatal, match="closed"):
            await store.list(prefix)
        with pytest.raises(errors.Fatal, match="closed"):
            await store.commit([put(f"{prefix}a")])

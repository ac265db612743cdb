"""Leases: keys that go with whoever stopped keeping them alive."""

import asyncio
import contextlib

import pytest

from controlplane.store import api, errors
from tests.contract.store.conftest import Backend
from tests.support import aio


def put(key: str, lease: int | None = None) -> api.Put:
    return api.Put(key=key, value=b"value", lease=lease)


async def removed(store: api.Store, prefix: str, after: int, count: int) -> list[tuple[str, int]]:
    """Key and version of the next removals."""
    found: list[tuple[str, int]] = []
    async with contextlib.aclosing(store.watch(prefix, after)) as batches:
        async for batch in batches:
            found.extend((event.key, event.version) for event in batch.events if event.value is None)
            if len(found) >= count:
                break
    return found


@aio.bounded(15)
async def test_a_lapsed_lease_removes_its_keys_in_one_revision_and_watches_see_it(
    backend: Backend, prefix: str
) -> None:
    async with backend.store() as store:
        lease = await store.grant_lease(1)
        revision = await store.commit([put(f"{prefix}a", lease), put(f"{prefix}b", lease), put(f"{prefix}stays")])
        gone = await removed(store, prefix, revision, 2)
        assert sorted(key for key, _ in gone) == [f"{prefix}a", f"{prefix}b"]
        assert len({version for _, version in gone}) == 1
        assert [entry.key for entry in (await store.list(prefix)).entries] == [f"{prefix}stays"]
        with pytest.raises(errors.LeaseExpired):
            await store.keep_alive(lease)


@aio.bounded(15)
async def test_a_lease_kept_alive_outlives_one_that_is_not(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        kept, dropped = await store.grant_lease(2), await store.grant_lease(2)
        revision = await store.commit([put(f"{prefix}kept", kept), put(f"{prefix}dropped", dropped)])

        async def keep() -> None:
            while True:
                assert 1 < await store.keep_alive(kept) <= 3
                await asyncio.sleep(0.3)

        keeper = asyncio.ensure_future(keep())
        try:
            assert [key for key, _ in await removed(store, prefix, revision, 1)] == [f"{prefix}dropped"]
            assert [entry.key for entry in (await store.list(prefix)).entries] == [f"{prefix}kept"]
            assert not keeper.done()
        finally:
            keeper.cancel()


@aio.bounded(10)
async def test_revoking_a_lease_removes_its_keys_at_once_and_twice_is_no_error(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        lease = await store.grant_lease(60)
        await store.commit([put(f"{prefix}a", lease)])
        await store.revoke(lease)
        assert (await store.list(prefix)).entries == ()
        await store.revoke(lease)


@aio.bounded(10)
async def test_a_key_written_again_without_the_lease_stays(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        lease = await store.grant_lease(60)
        await store.commit([put(f"{prefix}a", lease)])
        await store.commit([put(f"{prefix}a")])
        await store.revoke(lease)
        assert [entry.key for entry in (await store.list(prefix)).entries] == [f"{prefix}a"]


@aio.bounded(10)
async def test_writing_with_an_expired_lease_is_refused(backend: Backend, prefix: str) -> None:
    async with backend.store() as store:
        lease = await store.grant_lease(60)
        await store.revoke(lease)
        with pytest.raises(errors.LeaseExpired):
            await store.commit([put(f"{prefix}a"), put(f"{prefix}b", lease)])
        assert (await store.list(prefix)).entries == ()

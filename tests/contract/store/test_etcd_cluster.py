"""Three members: losing one is hardly seen, losing two is said clearly."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

import pytest

from controlplane.store import api, endpoints, errors
from tests.contract.store.conftest import connected
from tests.support import aio
from tests.support import etcd as etcd_process

pytestmark = [pytest.mark.etcd, pytest.mark.slow]


@pytest.fixture
def members() -> Iterator[list[etcd_process.EtcdProcess]]:
    with etcd_process.cluster(3) as started:
        yield started


async def retried(call: Callable[[], Awaitable[int]]) -> int:
    """As every caller of the store does with `Unavailable`: while a cluster elects, writes wait or fail."""
    while True:
        try:
            return await call()
        except errors.Unavailable:
            await asyncio.sleep(0.1)


@aio.bounded(60)
async def test_any_one_member_may_die_and_nothing_is_missed(
    members: list[etcd_process.EtcdProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "TRY_TIMEOUT_S", 1.0)
    wanted: list[str] = []
    seen: list[str] = []
    async with (
        connected(*(member.endpoint for member in members)) as store,
        contextlib.aclosing(store.watch("/orch/", 1)) as batches,
    ):
        for round_number, member in enumerate(members):
            await asyncio.to_thread(member.kill)
            for number in range(10):
                key = f"/orch/{round_number}-{number}"
                await retried(lambda key=key: store.commit([api.Put(key=key, value=b"")]))  # type: ignore[misc]
                wanted.append(key)
            while len(set(seen)) < len(wanted):
                seen += [event.key for event in (await anext(batches)).events]
            await asyncio.to_thread(member.start)
    assert list(dict.fromkeys(seen)) == wanted  # a commit that was in doubt may have been written twice


@aio.bounded(60)
async def test_without_a_quorum_reads_are_known_to_be_stale_and_writes_are_refused(
    members: list[etcd_process.EtcdProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "TRY_TIMEOUT_S", 1.0)
    _, *lost = members
    async with (
        connected(*(member.endpoint for member in members)) as store,
        contextlib.aclosing(store.watch("/orch/", 1)) as batches,
    ):
        assert (await anext(batches)).connected
        for member in lost:
            await asyncio.to_thread(member.kill)

        async def told_of_the_loss() -> None:
            while (await anext(batches)).connected:
                pass

        await aio.within(15, told_of_the_loss(), what="the watch says that it is cut off")
        with pytest.raises(errors.Unavailable) as raised:
            await store.list("/orch/")
        assert all(member.endpoint in str(raised.value) for member in members)
        with pytest.raises(errors.Unavailable):
            await store.commit([api.Put(key="/orch/b", value=b"", expect=0)])
        await asyncio.to_thread(lost[0].start)
        newer = await retried(lambda: store.commit([api.Put(key="/orch/c", value=b"")]))
        batch = await anext(batches)
        while batch.revision < newer:
            batch = await anext(batches)
        assert batch.connected

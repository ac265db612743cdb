"""Three members: losing one is hardly seen, losing two is said clearly."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator

import pytest
from structlog.testing import capture_logs

from controlplane.store import api, endpoints, errors
from controlplane.store.etcd import EtcdStore
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


@aio.bounded(60)
async def test_a_watch_comes_home_when_the_member_on_its_machine_is_back(
    members: list[etcd_process.EtcdProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missed on the way, and nobody is told that it was cut off."""
    monkeypatch.setattr(endpoints, "TRY_TIMEOUT_S", 1.0)
    home, *others = members
    store = EtcdStore([member.endpoint for member in members], home=home.endpoint)
    watched = store.watch("/orch/", 1)
    seen: list[str] = []

    async def seen_again(key: str) -> None:
        await retried(lambda: store.commit([api.Put(key=key, value=b"")]))
        while key not in seen:
            batch = await anext(watched)
            seen.extend(event.key for event in batch.events)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        await stack.enter_async_context(contextlib.aclosing(watched))
        await aio.within(20, seen_again("/orch/at-home"), what="it watches at home")
        await asyncio.to_thread(home.kill)
        await aio.within(20, seen_again("/orch/away"), what="it watches elsewhere")
        await asyncio.to_thread(home.start)
        with capture_logs() as said:
            for number in itertools.count():
                await aio.within(20, seen_again(f"/orch/{number}"), what="it goes on")
                await asyncio.sleep(0.2)
                if any(line["event"] == "store.watch_comes_home" for line in said):
                    break
        await aio.within(20, seen_again("/orch/back"), what="it watches at home again")
        assert [line["event"] for line in said] == ["store.watch_comes_home"]
        assert len(seen) == len(set(seen))
        for other in others[:1]:
            await asyncio.to_thread(other.kill)
        await aio.within(20, seen_again("/orch/one-less"), what="it does not depend on the others")

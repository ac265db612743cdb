"""What only a store behind a network has to promise: lost links, dead members, answers that never came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from controlplane.store import api, endpoints, errors
from tests.contract.store.conftest import connected
from tests.support import aio, tcp
from tests.support import etcd as etcd_process

pytestmark = pytest.mark.etcd


def put(key: str, value: bytes = b"value", expect: int | None = None) -> api.Put:
    return api.Put(key=key, value=value, expect=expect)


def nobody_listens() -> str:
    return f"127.0.0.1:{etcd_process.free_port()}"


@aio.bounded(10)
async def test_an_error_names_every_endpoint_and_its_reason() -> None:
    one, other = nobody_listens(), nobody_listens()
    async with connected(one, other) as store:
        with pytest.raises(errors.Unavailable) as raised:
            await store.list("/orch/")
    text = str(raised.value)
    assert one in text
    assert other in text
    assert text.count("refused") == 2
    assert "list /orch/" in text


@aio.bounded(10)
async def test_a_commit_that_reached_nobody_is_not_in_doubt() -> None:
    async with connected(nobody_listens()) as store:
        with pytest.raises(errors.Unavailable) as raised:
            await store.commit([put("/orch/a")])
        assert not raised.value.ambiguous


@aio.bounded(20)
async def test_the_second_endpoint_is_used_when_the_first_is_dead(
    etcd_server: etcd_process.EtcdProcess, prefix: str
) -> None:
    async with connected(nobody_listens(), etcd_server.endpoint) as store:
        revision = await store.commit([put(f"{prefix}a")])
        lease = await store.grant_lease(10)
        assert await store.keep_alive(lease) > 1
        async with contextlib.aclosing(store.watch(prefix, revision - 1)) as batches:
            event = (await next_events(batches, 1))[0]
        assert event == api.Event(key=f"{prefix}a", value=b"value", version=revision)


@aio.bounded(20)
async def test_a_watch_goes_to_the_next_endpoint_when_the_first_is_dead(
    etcd_server: etcd_process.EtcdProcess, prefix: str
) -> None:
    async with connected(etcd_server.endpoint) as other:
        revision = await other.commit([put(f"{prefix}a")])
    async with (
        connected(nobody_listens(), etcd_server.endpoint) as store,
        contextlib.aclosing(store.watch(prefix, revision - 1)) as batches,
    ):
        assert not (await anext(batches)).connected
        assert await anext(batches) == api.EventBatch(events=(), revision=revision - 1)
        assert (await next_events(batches, 1))[0].version == revision


async def next_events(batches: AsyncIterator[api.EventBatch], count: int) -> list[api.Event]:
    events: list[api.Event] = []
    while len(events) < count:
        events.extend((await anext(batches)).events)
    return events


@aio.bounded(30)
async def test_a_watch_outlives_a_killed_etcd_without_gap_or_repetition(
    private_etcd: etcd_process.EtcdProcess,
) -> None:
    async with connected(private_etcd.endpoint) as store:
        start = (await store.list("/orch/")).revision
        async with contextlib.aclosing(store.watch("/orch/", start)) as batches:
            for i in range(10):
                await store.commit([put(f"/orch/{i}"), put(f"/orch/{i}/more")])
            events = await next_events(batches, 7)
            await asyncio.to_thread(private_etcd.kill)
            while (batch := await anext(batches)).connected:
                events.extend(batch.events)
            assert not batch.events
            with pytest.raises(errors.Unavailable):
                await store.commit([put("/orch/unheard")])
            await asyncio.to_thread(private_etcd.start)
            async with connected(private_etcd.endpoint) as other:
                for i in range(10, 20):
                    await other.commit([put(f"/orch/{i}"), put(f"/orch/{i}/more")])
            events += await next_events(batches, 40 - len(events))
    assert [event.key for event in events] == [f"/orch/{i}{end}" for i in range(20) for end in ("", "/more")]
    assert [event.version for event in events] == [start + 1 + i // 2 for i in range(40)]


@aio.bounded(30)
async def test_a_watch_that_missed_a_compaction_while_cut_off_says_so(
    etcd_server: etcd_process.EtcdProcess, prefix: str
) -> None:
    async with tcp.relay(etcd_server.endpoint) as link, connected(link.endpoint) as store:
        start = await store.commit([put(f"{prefix}a")])
        async with (
            connected(etcd_server.endpoint) as other,
            contextlib.aclosing(store.watch(prefix, start)) as batches,
        ):
            await anext(batches)
            await link.stop()
            assert not (await anext(batches)).connected
            await other.commit([put(f"{prefix}b")])
            await other.compact(await other.commit([put(f"{prefix}c")]))
            await link.start()
            with pytest.raises(errors.Compacted):
                await next_events(batches, 1)


@aio.bounded(20)
async def test_a_guarded_commit_is_repeated_and_says_that_the_winner_may_be_itself(
    etcd_server: etcd_process.EtcdProcess, prefix: str
) -> None:
    async with (
        tcp.relay(etcd_server.endpoint) as link,
        connected(link.endpoint, etcd_server.endpoint) as store,
        connected(etcd_server.endpoint) as other,
    ):
        await store.list(prefix)
        link.swallow_answers()
        commit = asyncio.ensure_future(store.commit([put(f"{prefix}a", expect=0)]))
        await written(other, prefix)
        link.cut()
        with pytest.raises(errors.Conflict) as raised:
            await commit
        assert raised.value.maybe_own
        assert raised.value.keys == (f"{prefix}a",)


@aio.bounded(20)
async def test_an_unguarded_commit_whose_answer_was_lost_is_in_doubt_and_not_repeated(
    etcd_server: etcd_process.EtcdProcess, prefix: str
) -> None:
    async with (
        tcp.relay(etcd_server.endpoint) as link,
        connected(link.endpoint, etcd_server.endpoint) as store,
        connected(etcd_server.endpoint) as other,
    ):
        await store.list(prefix)
        link.swallow_answers()
        commit = asyncio.ensure_future(store.commit([put(f"{prefix}a")]))
        version = await written(other, prefix)
        link.cut()
        with pytest.raises(errors.Unavailable, match="may have happened") as raised:
            await commit
        assert raised.value.ambiguous
        assert (await other.list(prefix)).entries[0].version == version, "it was written twice"


async def written(store: api.Store, prefix: str) -> int:
    """The version of the first entry below the prefix, as soon as there is one."""
    async with contextlib.aclosing(store.watch(prefix, (await store.list(prefix)).revision)) as batches:
        listed = (await store.list(prefix)).entries
        return listed[0].version if listed else (await next_events(batches, 1))[0].version


@aio.bounded(20)
async def test_a_frozen_member_does_not_hold_calls_forever(
    private_etcd: etcd_process.EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "TRY_TIMEOUT_S", 0.3)
    async with connected(private_etcd.endpoint) as store:
        await store.list("/orch/")
        private_etcd.freeze()
        with pytest.raises(errors.Unavailable, match="no answer in time"):
            await store.list("/orch/")
        with pytest.raises(errors.Unavailable) as raised:
            await store.commit([put("/orch/a")])
        assert raised.value.ambiguous


@aio.bounded(10)
async def test_a_cancelled_call_is_a_cancelled_task_not_a_closed_store(
    private_etcd: etcd_process.EtcdProcess,
) -> None:
    async with connected(private_etcd.endpoint) as store:
        await store.list("/orch/")
        private_etcd.freeze()
        listing = asyncio.ensure_future(store.list("/orch/"))
        await asyncio.sleep(0)
        listing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listing

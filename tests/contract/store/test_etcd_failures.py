"""What only a store behind a network has to promise: lost links, dead members, answers that never came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from controlplane.store import api, committing, endpoints, errors, txn
from controlplane.store.etcd import EtcdStore
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


class Unheard:
    """A store whose first link lets requests through and swallows what is answered; the second one is whole."""

    def __init__(self, store: api.Store, other: api.Store, link: tcp.Relay) -> None:
        self.store, self.other, self.link = store, other, link

    @contextlib.asynccontextmanager
    async def committing(self, prefix: str, *changes: api.Change) -> AsyncIterator[tuple["asyncio.Future[int]", int]]:
        """A commit that was carried out, and by which revision. After the block its first answer is lost for good."""
        before = await self.store.commit([put("/orch-test/before")])
        self.link.swallow_answers()
        commit = asyncio.ensure_future(self.store.commit(changes))
        yield commit, await written(self.other, prefix, before)
        self.link.cut()


@contextlib.asynccontextmanager
async def unheard(server: etcd_process.EtcdProcess) -> AsyncIterator[Unheard]:
    """For the length of a block."""
    async with (
        tcp.relay(server.endpoint) as link,
        connected(link.endpoint, server.endpoint) as store,
        connected(server.endpoint) as other,
    ):
        yield Unheard(store, other, link)


@aio.bounded(20)
@pytest.mark.parametrize("expect", [0, None], ids=["creates", "expects nothing"])
async def test_a_commit_whose_answer_was_lost_is_repeated_and_happens_once(
    etcd_server: etcd_process.EtcdProcess, prefix: str, expect: int | None
) -> None:
    """It returns the revision of the try that was carried out; to the caller nothing has happened."""
    async with unheard(etcd_server) as its:
        async with its.committing(prefix, put(f"{prefix}a", expect=expect)) as (commit, version):
            pass
        assert await commit == version
        assert [entry.version for entry in (await its.other.list(prefix)).entries] == [version]


@aio.bounded(20)
async def test_what_others_have_written_since_is_no_conflict_and_stays(
    etcd_server: etcd_process.EtcdProcess, prefix: str
) -> None:
    """As the leader does, which writes a status to what was applied while the person still waits for the answer."""
    async with unheard(etcd_server) as its:
        async with its.committing(prefix, put(f"{prefix}a", expect=0), put(f"{prefix}b")) as (commit, version):
            await its.other.commit([put(f"{prefix}a", b"a's status", expect=version), put(f"{prefix}b", b"b's")])
        assert await commit == version
        assert [entry.value for entry in (await its.other.list(prefix)).entries] == [b"a's status", b"b's"]


@aio.bounded(20)
async def test_what_was_removed_since_does_not_come_back(etcd_server: etcd_process.EtcdProcess, prefix: str) -> None:
    """Though what a repeat would expect, that there is nothing, is true again."""
    async with unheard(etcd_server) as its:
        async with its.committing(prefix, put(f"{prefix}a", expect=0)) as (commit, version):
            await its.other.commit([api.Delete(key=f"{prefix}a", expect=version)])
        assert await commit == version
        assert not (await its.other.list(prefix)).entries


@aio.bounded(20)
async def test_a_conflict_whose_answer_was_lost_is_one(etcd_server: etcd_process.EtcdProcess, prefix: str) -> None:
    """Somebody else was first. It is told, and no try of it is carried out after that."""
    async with unheard(etcd_server) as its:
        taken = await its.other.commit([put(f"{prefix}a", b"theirs")])
        await its.store.commit([put("/orch-test/before")])
        its.link.swallow_answers()
        refused = asyncio.ensure_future(its.store.commit([put(f"{prefix}a", b"ours", expect=0)]))
        await its.link.until_swallowed()
        its.link.cut()
        with pytest.raises(errors.Conflict) as raised:
            await refused
        assert raised.value.keys == (f"{prefix}a",)
        assert (await its.other.list(f"{prefix}a")).entries == (
            api.Entry(key=f"{prefix}a", value=b"theirs", version=taken),
        )


@aio.bounded(20)
async def test_a_try_that_arrives_late_is_not_carried_out(etcd_server: etcd_process.EtcdProcess, prefix: str) -> None:
    """Neither when what it expects is true again."""
    receipt = txn.Receipt(key=f"{prefix}receipt", before=0, value=b"one")
    request = txn.build([put(f"{prefix}a", expect=0), put(f"{prefix}b")], None, receipt)
    link = endpoints.Link(etcd_server.endpoint, None)
    async with connected(etcd_server.endpoint) as other:
        assert (await link.kv.Txn(request)).succeeded
        await other.commit([api.Delete(key=f"{prefix}a"), api.Delete(key=f"{prefix}b")])
        assert not (await link.kv.Txn(request)).succeeded
        assert [entry.key for entry in (await other.list(prefix)).entries] == [receipt.key]
    await link.close()


@aio.bounded(20)
async def test_a_process_goes_on_with_the_receipts_of_the_one_before(etcd_server: etcd_process.EtcdProcess) -> None:
    """They do not become more with every start. Two processes of one name keep each other from nothing."""
    stores = [EtcdStore([etcd_server.endpoint], writer="cp1") for _ in range(2)]
    for number in range(6):
        await stores[number % 2].commit([put("/orch-test/counted", b"%d" % number)])
    receipts, counted = await stores[0].list(f"{committing.PREFIX}cp1/"), await stores[0].list("/orch-test/counted")
    assert [entry.key for entry in receipts.entries] == [f"{committing.PREFIX}cp1/1"]
    assert [(entry.value, entry.version) for entry in counted.entries] == [(b"5", receipts.entries[0].version)]
    for store in stores:
        await store.close()


async def written(store: api.Store, prefix: str, after: int) -> int:
    """The version of what is written below the prefix after a revision, as soon as something is."""
    async with contextlib.aclosing(store.watch(prefix, after)) as batches:
        return (await next_events(batches, 1))[0].version


@aio.bounded(20)
async def test_a_frozen_member_does_not_hold_calls_forever(
    private_etcd: etcd_process.EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "TRY_TIMEOUT_S", 0.3)
    async with connected(private_etcd.endpoint) as store:
        await store.commit([put("/orch/a")])
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

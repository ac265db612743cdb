"""Elections on the real store and on the fake: one leader at a time, another soon, and none that writes too late."""

import asyncio
import contextlib

import pytest

from controlplane.store import api, election, errors
from tests.contract.store.conftest import Backend, connected
from tests.support import aio, tcp
from tests.support import etcd as etcd_process


def elector(store: api.Store, name: str) -> election.Elector:
    return election.Elector(store, identity=name, address=f"{name}:7100")


@aio.bounded(20)
async def test_one_leads_and_the_next_one_leads_at_once_when_it_resigns(
    private_backend: Backend,
) -> None:
    async with private_backend.stores(2) as (one, other):
        first = await elector(one, "one").campaign()
        waiting = asyncio.ensure_future(elector(other, "other").campaign())
        leader = await election.current_leader(other)
        assert leader == election.Leader(identity="one", address="one:7100", version=first.fence.version)
        assert first.holds()
        assert not waiting.done()
        await first.resign()
        assert not first.holds()
        second = await aio.within(1, waiting, what="the other one leads after a resignation")
        assert second.fence.version > first.fence.version
        with pytest.raises(errors.Deposed):
            await one.commit([api.Put(key="/orch/late", value=b"")], fence=first.fence)
        await other.commit([api.Put(key="/orch/good", value=b"")], fence=second.fence)


@aio.bounded(20)
async def test_another_leads_within_five_seconds_when_the_leader_stops_renewing(
    private_backend: Backend,
) -> None:
    async with private_backend.stores(2) as (one, other):
        first = await elector(one, "one").campaign()  # and nobody keeps it, as if the process were frozen
        second = await aio.within(5, elector(other, "other").campaign(), what="another leader")
        assert first.lost.is_set(), "it still believed when another was elected"
        with pytest.raises(errors.Deposed):
            await one.commit([api.Put(key="/orch/late", value=b"")], fence=first.fence)
        await second.resign()


@aio.bounded(20)
async def test_a_leader_that_is_kept_stays(private_backend: Backend) -> None:
    async with private_backend.stores(2) as (one, other), elector(one, "one").leading() as first:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(elector(other, "other").campaign(), 4.5)
        assert first.holds()
        await one.commit([api.Put(key="/orch/a", value=b"")], fence=first.fence)


@aio.bounded(20)
async def test_losing_the_key_ends_the_block_that_leads(private_backend: Backend) -> None:
    async with private_backend.stores(2) as (one, other):
        leading = asyncio.Event()

        async def lead() -> None:
            async with elector(one, "one").leading():
                leading.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(lead())
        await leading.wait()
        await other.commit([api.Delete(key=election.LEADER_KEY)])
        with pytest.raises(ExceptionGroup) as raised:
            await aio.within(3, task, what="the deposed leader stops")
        assert raised.group_contains(errors.Deposed)


@aio.bounded(20)
async def test_followers_hear_of_every_new_leader(private_backend: Backend) -> None:
    async with (
        private_backend.stores(2) as (one, other),
        contextlib.aclosing(election.watch_leader(other)) as leaders,
    ):
        assert await anext(leaders) is None
        for name in ("first", "second"):
            leadership = await elector(one, name).campaign()
            leader = await anext(leaders)
            assert leader
            assert leader.identity == name
            await leadership.resign()
            assert await anext(leaders) is None


@aio.bounded(20)
async def test_of_many_candidates_one_wins(private_backend: Backend) -> None:
    async with private_backend.stores(5) as candidates:
        campaigns = [asyncio.ensure_future(elector(store, f"n{i}").campaign()) for i, store in enumerate(candidates)]
        done, waiting = await asyncio.wait(campaigns, return_when=asyncio.FIRST_COMPLETED)
        (winner,) = done
        leader = await election.current_leader(candidates[0])
        assert leader
        assert leader.version == winner.result().fence.version
        for campaign in waiting:
            campaign.cancel()
        await winner.result().resign()


@aio.bounded(20)
async def test_a_longer_lease_outlasts_a_pause_in_which_the_usual_one_lapses(private_backend: Backend) -> None:
    async with private_backend.stores(2) as (one, other):
        patient = election.Elector(one, identity="one", address="one:7100", ttl_s=2 * election.TTL_S)
        first = await patient.campaign()
        waiting = asyncio.ensure_future(elector(other, "other").campaign())
        await asyncio.sleep(election.TTL_S + 0.5)
        assert first.holds()
        assert not waiting.done()
        await one.commit([api.Put(key="/orch/good", value=b"")], fence=first.fence)
        await first.resign()
        second = await aio.within(1, waiting, what="the other one leads after a resignation")
        await second.resign()


@pytest.mark.etcd
@aio.bounded(20)
async def test_a_leader_cut_off_from_etcd_gives_up_before_another_can_lead(
    private_etcd: etcd_process.EtcdProcess,
) -> None:
    async with (
        tcp.relay(private_etcd.endpoint) as link,
        connected(link.endpoint) as cut_off,
        connected(private_etcd.endpoint) as other,
    ):
        first = await elector(cut_off, "one").campaign()
        keeping = asyncio.ensure_future(first.keep(election.TTL_S / election.RENEWALS))
        campaign = asyncio.ensure_future(elector(other, "other").campaign())
        granted_until = first._valid_until
        await aio.until(lambda: first._valid_until > granted_until, what="a renewal")
        await link.stop()
        await first.lost.wait()
        assert not campaign.done(), "two believed that they lead"
        with pytest.raises(errors.Deposed):
            await keeping
        second = await aio.within(5, campaign, what="another leader")
        await second.resign()

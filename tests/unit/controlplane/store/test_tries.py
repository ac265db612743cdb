"""Whom a call asks next: members that are there are asked again, those that are not are left alone."""

import asyncio
import itertools
from dataclasses import dataclass

import grpc
import grpc.aio

from controlplane.store import tries
from tests.support.aio import bounded


@dataclass(frozen=True)
class Member:
    address: str


HOME, OTHER = Member("home"), Member("other")


def told(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, nothing, nothing, details)


@bounded(60, virtual_time=True)
async def test_a_member_between_two_leaders_is_asked_again_before_any_other() -> None:
    """Not in one breath, and not for ever."""
    asked = tries.Tries([HOME, OTHER], longest_s=5)
    clock = asyncio.get_running_loop().time
    began, times = clock(), []
    while (member := await asked.next()) is HOME:
        times.append(clock() - began)
        asked.failed("leader changed", again=True)
    assert member is OTHER
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(pauses) >= tries.PAUSE_S - 1e-6
    assert tries.TURN_S - 2 * tries.PAUSE_S < times[-1] <= tries.TURN_S + tries.PAUSE_S


@bounded(60, virtual_time=True)
async def test_a_member_that_is_not_there_is_asked_once() -> None:
    asked = tries.Tries([HOME, OTHER], longest_s=5)
    assert await asked.next() is HOME
    asked.failed("home: refused", again=False)
    assert await asked.next() is OTHER
    asked.failed("other: refused", again=False)
    assert await asked.next() is None
    assert asked.failures == ("home: refused", "other: refused")


@bounded(60, virtual_time=True)
async def test_everybody_is_asked_however_long_the_first_one_took() -> None:
    asked = tries.Tries([HOME, OTHER], longest_s=5)
    assert await asked.next() is HOME
    await asyncio.sleep(6)
    asked.failed("home: no answer in time", again=True, late=True)
    assert await asked.next() is OTHER
    asked.failed("other: no answer in time", again=True, late=True)
    assert await asked.next() is None


@bounded(60, virtual_time=True)
async def test_a_write_waits_longer_each_time_that_it_was_too_late() -> None:
    """The first tries are over before a person notices; the last one is as patient as a slow store needs."""
    asked = tries.Tries([HOME], longest_s=5)
    waited: list[float] = []
    while await asked.next() is not None:
        waited.append(asked.write_timeout_s)
        await asyncio.sleep(waited[-1])
        asked.failed("no answer in time", again=True, late=True)
    assert waited == [0.5, 0.5, 1.0, 1.0, 3.0]


@bounded(60, virtual_time=True)
async def test_what_fails_at_once_leaves_a_write_its_patience() -> None:
    asked = tries.Tries([HOME], longest_s=5)
    for _ in range(10):
        assert await asked.next() is HOME
        assert asked.write_timeout_s == tries.WRITE_TRIES_S[0]
        asked.failed("raft proposal dropped", again=True)


def test_only_what_the_leader_itself_refuses_has_certainly_not_happened() -> None:
    dropped = told(grpc.StatusCode.UNKNOWN, "raft proposal dropped")
    lost = told(grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure")
    full = told(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    assert [tries.is_dropped(one) for one in (dropped, lost, full)] == [True, False, False]
    assert [tries.is_between_leaders(one) for one in (dropped, lost, full)] == [True, True, False]

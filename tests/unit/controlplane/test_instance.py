"""What an instance that does not lead tells agents, as it hears who does."""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator

import pytest

from controlplane.controllers.nodes import Ranges
from controlplane.instance import Identity, Instance
from controlplane.leader import World
from controlplane.store import api, election
from controlplane.store.memory import MemoryStore
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support.aio import bounded
from tests.support.fake_agent import MemoryLink, pair

HERE, ELSEWHERE = "192.0.2.1:7400", "192.0.2.3:7400"


async def leads(store: MemoryStore, address: str) -> None:
    """Another instance writes that it leads now."""
    value = json.dumps({"identity": f"at {address}", "address": address}).encode()
    await store.commit([api.Put(key=election.LEADER_KEY, value=value)])


@contextlib.asynccontextmanager
async def follower(store: MemoryStore) -> AsyncIterator[Instance]:
    """An instance that knows who leads."""
    numbers = itertools.count(1)
    world = World(
        now_ms=lambda: 0,
        random=random.Random(1),
        suffixes=(f"x{number}" for number in numbers),
        ranges=Ranges(cluster="10.112.0.0/16", subnet_bits=24, services="10.201.0.0/16"),
    )
    instance = Instance(store, Identity(name="cp2", address="192.0.2.2:7400"), world, new_id=lambda: "id")
    running = asyncio.ensure_future(instance.run())
    try:
        await asyncio.sleep(1)
        yield instance
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def asked(instance: Instance, lost: str) -> tuple[MemoryLink, "asyncio.Future[None]"]:
    """An agent that has lost the leader there asks for another."""
    mine, theirs = pair()
    serving = asyncio.ensure_future(instance.dispatcher.serve(theirs))  # type: ignore[arg-type]
    await mine.send(wire.AgentMessage(register=wire.Register(node_id="n1", node_name="n1", lost_leader=lost)))
    return mine, serving


@bounded(60, virtual_time=True)
@pytest.mark.parametrize("where", [HERE, ELSEWHERE])
async def test_an_agent_is_sent_to_the_next_leader_as_soon_as_there_is_one(where: str) -> None:
    """Also when that is the one that was lost: started again, it may win."""
    store = MemoryStore()
    await leads(store, HERE)
    async with follower(store) as instance:
        link, serving = await asked(instance, HERE)
        await asyncio.sleep(3)
        assert not serving.done(), "the one that was lost is named"
        await leads(store, where)
        named_at = asyncio.get_running_loop().time()
        message = await link.receive()
        assert message.redirect.leader_address == where
        assert asyncio.get_running_loop().time() - named_at < 0.1
        await link.close("that is all")
        await serving


@bounded(60, virtual_time=True)
async def test_the_lost_leader_is_named_when_no_other_comes() -> None:
    """The agent's own link may be what was broken."""
    store = MemoryStore()
    await leads(store, HERE)
    async with follower(store) as instance:
        began = asyncio.get_running_loop().time()
        link, serving = await asked(instance, HERE)
        message = await link.receive()
        assert message.redirect.leader_address == HERE
        assert 3.5 < asyncio.get_running_loop().time() - began < 5, "agents wait for 5 s"
        await link.close("that is all")
        await serving

"""What nodes use, through the whole API; a test plays the agents."""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from controlplane.api import ports, usage
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, api_world
from tests.support.api_world import node, refusal
from tests.support.streams import Pipe


async def counts(pipe: Pipe, asked: wire.OpenStream) -> None:
    """One connection to the service that there is, and another one that nobody has."""
    traffic = [wire.TrafficCounter(key=key, connections=1) for key in ("10.201.0.1", "10.201.0.77")]
    counters = wire.NodeCounters(usage=pb.NodeUsage(at_ns=5), traffic=traffic if asked.usage.services else [])
    await pipe.send(wire.StreamFrame(counters=counters))


async def refuses(pipe: Pipe, _asked: wire.OpenStream) -> None:
    await pipe.send(wire.StreamFrame(error=pb.Error(message="its counters cannot be read: nft is gone")))


async def never_answers(_pipe: Pipe, _asked: wire.OpenStream) -> None:
    await asyncio.Event().wait()


async def read(world: api_world.World, **fields: object) -> dict[str, pb.NodeUsage]:
    request = pb.UsageRequest(**fields)  # type: ignore[arg-type]
    return {response.usage.node: response.usage async for response in world.stub.Usage(request)}


@aio.bounded(30)
async def test_every_node_is_asked_once_and_only_then(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {"id-of-n1": counts, "id-of-n2": counts}
        await world.put(node("n1"), node("n2"))
        assert world.streams.asked == []
        found = await read(world, services=True)
        assert sorted(found) == ["n1", "n2"]
        assert [(one.namespace, one.service, one.connections) for one in found["n1"].services] == [
            ("default", "web", 1)
        ]
        assert [one.usage for one in world.streams.asked] == [wire.NodeUsageRequest(services=True)] * 2
        assert sorted(await read(world, nodes=["n2"])) == ["n2"]


@aio.bounded(30)
async def test_a_node_that_does_not_tell_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps nobody from hearing of the others."""
    monkeypatch.setattr(usage, "NODE_TIMEOUT_S", 0.2)
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {"id-of-n1": counts, "id-of-n2": refuses, "id-of-n3": never_answers}
        await world.put(*(node(f"n{number}") for number in range(1, 5)))
        assert {name: one.problem for name, one in (await read(world)).items()} == {
            "n1": "",
            "n2": "its counters cannot be read: nft is gone",
            "n3": "it did not answer within 0.2 s",
            "n4": "its agent has no session",
        }


@aio.bounded(30)
async def test_a_follower_names_the_leader(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        world.election.now = ports.Leader(name="cp2", address="10.0.0.2:7400")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read(world)
        assert refusal(raised.value)[1].leader == "10.0.0.2:7400"

"""A check of the network through the whole API; a test plays the agents."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.api import network_check
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world
from tests.support.api_world import node, refusal
from tests.support.streams import Pipe


def member(name: str, number: int, *, down: bool = False) -> objects_pb2.Node:
    """A node with a subnet."""
    made = node(name, state=objects_pb2.NODE_STATE_DOWN if down else objects_pb2.NODE_STATE_READY)
    made.status.subnet = f"10.112.{number}.0/24"
    made.status.description.address = f"192.0.2.{number}"
    return made


async def all_is_well(pipe: Pipe, asked: wire.OpenStream) -> None:
    """Reaches every peer."""
    peers = asked.network_check.network.peers
    findings = [pb.NetworkFinding(target=peer.node_id, what="packets", microseconds=5) for peer in peers]
    await pipe.send(wire.StreamFrame(findings=pb.CheckNetworkResponse(findings=findings)))
    await pipe.send(wire.StreamFrame(end=True))


async def breaks_off(pipe: Pipe, _asked: wire.OpenStream) -> None:
    await pipe.close("connection reset")


async def refuses(pipe: Pipe, _asked: wire.OpenStream) -> None:
    await pipe.send(wire.StreamFrame(error=pb.Error(message="this agent does not know how to serve None")))


async def never_answers(_pipe: Pipe, _asked: wire.OpenStream) -> None:
    await asyncio.Event().wait()


async def check(world: api_world.World, **fields: object) -> list[tuple[str, str, str]]:
    request = pb.CheckNetworkRequest(**fields)  # type: ignore[arg-type]
    responses = [response async for response in world.stub.CheckNetwork(request)]
    found = [finding for response in responses for finding in response.findings]
    return sorted((one.source, one.target, one.problem) for one in found)


@aio.bounded(30)
async def test_every_node_tries_every_other(tmp_path: Path) -> None:
    """It is told where the others and the ready services are; nodes come back by name."""
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {"id-of-n1": all_is_well, "id-of-n2": all_is_well}
        await world.put(member("n1", 1), member("n2", 2), member("n3", 3, down=True))
        assert await check(world) == [("n1", "n2", ""), ("n2", "n1", ""), ("n3", "n3", "it is down")]
        asked = world.streams.asked[0].network_check
        assert asked.network.subnet == "10.112.1.0/24"
        assert asked.network.cluster_range == "10.112.0.0/16"
        assert [service.name for service in asked.services] == ["web"]
        assert [one.task_id for one in asked.services[0].endpoints] == ["web-1"]
        assert asked.timeout == 1000


@aio.bounded(30)
async def test_a_node_that_cannot_be_asked_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to one, the others are heard."""
    monkeypatch.setattr(network_check, "NODE_TIMEOUT_S", 0.2)
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {
            "id-of-n1": all_is_well,
            "id-of-n2": breaks_off,
            "id-of-n3": refuses,
            "id-of-n4": never_answers,
        }
        await world.put(*(member(f"n{number}", number) for number in range(1, 6)))
        found = await check(world)
        assert [problem for source, target, problem in found if source == target] == [
            "connection reset",
            "this agent does not know how to serve None",
            "it did not answer within 0.2 s",
            "its agent has no session",
        ]
        assert [target for source, target, problem in found if source == "n1" and not problem] == [
            "n2",
            "n3",
            "n4",
            "n5",
        ]


@aio.bounded(30)
async def test_one_node_may_be_named(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {"id-of-n1": all_is_well, "id-of-n2": all_is_well}
        await world.put(member("n1", 1), member("n2", 2))
        assert await check(world, nodes=["n2"]) == [("n2", "n1", "")]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(world, nodes=["n9"])
        code, error = refusal(raised.value)
        assert code == grpc.StatusCode.NOT_FOUND
        assert "n9" in error.message


@aio.bounded(30)
async def test_a_follower_names_the_leader(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        world.election.now = network_check.ports.Leader(name="cp2", address="10.0.0.2:7400")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(world)
        assert refusal(raised.value)[1].leader == "10.0.0.2:7400"

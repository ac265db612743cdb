"""The cluster's doctor, through the whole API; a test plays the agents."""

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from controlplane.api import diagnosis, ports
from protos import findings
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, api_world
from tests.support.api_world import NOW_MS, node, refusal
from tests.support.streams import Pipe, Serve

FULL = findings.failed("disk", "1% is free", "make room")
UNKEPT = findings.warning("clock", "nothing keeps it right", "install chrony")


def agent(ahead_ms: int, *found: pb.Finding) -> Serve:
    """An agent whose clock is ahead, and whose doctor finds this."""

    async def answers(pipe: Pipe, asked: wire.OpenStream) -> None:
        if asked.WhichOneof("request") == "network_check":
            finding = pb.NetworkFinding(target="id-of-n2", what="packets", microseconds=5)
            await pipe.send(wire.StreamFrame(findings=pb.CheckNetworkResponse(findings=[finding])))
        else:
            await pipe.send(wire.StreamFrame(diagnosis=wire.NodeDiagnosis(now=NOW_MS + ahead_ms)))
            await pipe.send(wire.StreamFrame(diagnosis=wire.NodeDiagnosis(findings=found)))
        await pipe.send(wire.StreamFrame(end=True))

    return answers


async def refuses(pipe: Pipe, _asked: wire.OpenStream) -> None:
    await pipe.send(wire.StreamFrame(error=pb.Error(message="its look at its machine took more than 45 s")))


async def never_answers(_pipe: Pipe, _asked: wire.OpenStream) -> None:
    await asyncio.Event().wait()


async def examined(world: api_world.World, *, without_network: bool = False) -> dict[tuple[str, str], str]:
    """The verdict and the message, by place and check."""
    request = pb.DiagnoseRequest(without_network=without_network)
    found = [one async for part in world.stub.Diagnose(request) for one in part.findings]
    return {(one.place, one.check): f"{findings.word(one)}: {one.message}" for one in found}


@aio.bounded(30)
async def test_each_node_s_machine_is_heard_and_its_clock_compared(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {
            "id-of-n1": agent(0, FULL, UNKEPT),
            "id-of-n2": agent(-20_000),
            "id-of-n3": agent(600_000),
        }
        await world.put(node("n1"), node("n2"), node("n3"))
        found = await examined(world)
        assert found["n1", "disk"] == "failed: 1% is free"
        assert found["n1", "clock"].startswith("ok: within "), "how right it is says more than who keeps it so"
        assert found["n2", "clock"].startswith("warning: 20.0 s behind the leader's")
        assert found["n3", "clock"].startswith("failed: 600.0 s ahead of the leader's")
        assert found["n1", "network"] == "ok: 1 ways to nodes, names and services work"
        assert found["cp1", "instance"].startswith("ok")


@aio.bounded(30)
async def test_nodes_that_do_not_tell_are_findings_and_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "NODE_TIMEOUT_S", 0.2)
    async with api_world.opened(tmp_path) as world:
        world.streams.agents = {"id-of-n1": agent(0, FULL), "id-of-n2": refuses, "id-of-n3": never_answers}
        await world.put(*(node(f"n{number}") for number in range(1, 5)))
        found = await examined(world, without_network=True)
        assert found["n1", "disk"] == "failed: 1% is free"
        assert "its look at its machine took more than 45 s" in found["n2", "machine"]
        assert "it did not answer within 0.2 s" in found["n3", "machine"]
        assert "its agent has no session" in found["n4", "machine"]
        assert not [check for _, check in found if check == "network"]
        assert all(asked.WhichOneof("request") == "diagnosis" for asked in world.streams.asked)


@aio.bounded(30)
async def test_a_follower_names_the_leader_and_without_one_it_tells_what_it_knows(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(node("n1"))
        world.election.now = ports.Leader(name="cp2", address="10.0.0.2:7400")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await examined(world)
        assert refusal(raised.value)[1].leader == "10.0.0.2:7400"
        world.election.now = ports.Leader()
        found = await examined(world)
        assert found["", "leader"].startswith("failed: nobody leads")
        assert ("n1", "node") in found
        assert world.streams.asked == []

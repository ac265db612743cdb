"""Commit through the whole API; a test plays the agent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world
from tests.support.api_world import node, refusal, task
from tests.support.streams import Pipe

OFFER = pb.CommitOffer(task="web-1-a", manifest=b"{}", config=b"{}", layer=pb.BlobSize(digest="sha256:0", size=5))


def start(name: str = "web-1-a", **more: object) -> pb.CommitRequest:
    return pb.CommitRequest(start=pb.CommitStart(task=name, **more))  # type: ignore[arg-type]


def part(**fields: object) -> wire.StreamFrame:
    return wire.StreamFrame(commit=pb.CommitResponse(**fields))  # type: ignore[arg-type]


async def gives(pipe: Pipe, asked: wire.OpenStream) -> None:
    """Offers, and gives five bytes for each digest that is wished."""
    assert asked.HasField("commit")
    await pipe.send(part(offer=OFFER))
    for digest in (await pipe.receive()).wish.digests:
        await pipe.send(part(blob=digest))
        await pipe.send(part(chunk=b"bytes"))
    await pipe.send(part(end=True))


async def responses(world: api_world.World, *requests: pb.CommitRequest) -> list[pb.CommitResponse]:
    async def sent() -> AsyncIterator[pb.CommitRequest]:
        for request in requests:
            yield request

    return [response async for response in world.stub.Commit(sent())]


async def refused(world: api_world.World, *requests: pb.CommitRequest) -> tuple[grpc.StatusCode, pb.Error]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await responses(world, *requests)
    return refusal(raised.value)


async def with_web(world: api_world.World) -> None:
    world.streams.agents["id-of-n1"] = gives
    await world.put(node("n1"), task("web-1-a", node="id-of-n1"))


@aio.bounded(20)
async def test_offer_wish_and_bytes_are_carried(tmp_path: Path) -> None:
    """To the node of the task, which may have ended; with what was said about it."""
    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        wish = pb.CommitRequest(wish=pb.CommitWish(digests=["sha256:0"]))
        assert await responses(world, start(running=True, container="main"), wish) == [
            pb.CommitResponse(offer=OFFER),
            pb.CommitResponse(blob="sha256:0"),
            pb.CommitResponse(chunk=b"bytes"),
            pb.CommitResponse(end=True),
        ]
        asked = world.streams.asked[0].commit
        assert (asked.task_id, asked.container, asked.running) == ("web-1-a", "main", True)
        over = task("web-2-b", node="id-of-n1")
        over.status.state = objects_pb2.TASK_STATE_COMPLETE
        await world.put(over)
        assert (await responses(world, start("web-2-b"), wish))[-1].end


@aio.bounded(20)
async def test_a_node_that_is_lost_is_told_by_name(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        call = world.stub.Commit()
        await call.write(start())
        assert (await call.read()).offer == OFFER
        await world.streams.lose("id-of-n1")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert error.message == "web-1-a on node n1 was lost before all had come: connection reset"
        code, error = await refused(world, start())
        assert (code, "n1 cannot be reached" in error.message) == (grpc.StatusCode.UNAVAILABLE, True)


@aio.bounded(20)
async def test_what_cannot_be_committed_is_refused(tmp_path: Path) -> None:
    """No such task or container, no node, no first message, a second one; and what the agent says, with the place."""

    async def not_started(pipe: Pipe, _: wire.OpenStream) -> None:
        await pipe.send(wire.StreamFrame(error=pb.Error(message="web-1-a has not been started yet")))

    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        await world.put(task("db-1-a", service="db", started=False))
        for requests, expected, words in (
            ([start("wbe")], grpc.StatusCode.NOT_FOUND, "there is no task 'wbe' in namespace default"),
            ([start(container="proxy")], grpc.StatusCode.NOT_FOUND, "no container 'proxy'"),
            ([start("db-1-a")], grpc.StatusCode.FAILED_PRECONDITION, "is on no node yet"),
            ([pb.CommitRequest(wish=pb.CommitWish())], grpc.StatusCode.INVALID_ARGUMENT, "of which task"),
            ([start("")], grpc.StatusCode.INVALID_ARGUMENT, "of which task"),
            ([start(), start()], grpc.StatusCode.INVALID_ARGUMENT, "in its first message only"),
        ):
            code, error = await refused(world, *requests)
            assert code is expected, requests
            assert words in error.message
        world.streams.agents["id-of-n1"] = not_started
        code, error = await refused(world, start())
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.message == "web-1-a on node n1: web-1-a has not been started yet"


@aio.bounded(20)
async def test_only_the_leader_commits(tmp_path: Path) -> None:
    """The agents are connected to it. Nothing is sent: a client of asyncio that is refused as it sends hears less."""

    async def nothing() -> AsyncIterator[pb.CommitRequest]:
        await asyncio.Event().wait()
        yield start()

    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        world.election.now = api_world.ports.Leader(name="cp2", address="127.0.0.1:7401", here=False)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anext(aiter(world.stub.Commit(nothing())))
        code, error = refusal(raised.value)
        assert (code, error.leader) == (grpc.StatusCode.FAILED_PRECONDITION, "127.0.0.1:7401")

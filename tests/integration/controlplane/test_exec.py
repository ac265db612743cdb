"""Exec through the whole API; a test plays the agent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, api_world
from tests.support.api_world import node, refusal, service, task
from tests.support.streams import Pipe


def start(target: str = "web", **fields: object) -> pb.ExecRequest:
    return pb.ExecRequest(start=pb.ExecStart(target=target, command=["cat"], **fields))  # type: ignore[arg-type]


def output(**fields: object) -> wire.StreamFrame:
    return wire.StreamFrame(output=pb.ExecResponse(**fields))  # type: ignore[arg-type]


async def cat(pipe: Pipe, asked: wire.OpenStream) -> None:
    """Answers with what it gets, and with 128 + n after signal n."""
    await pipe.send(output(started=asked.exec.task_id))
    while True:
        request = (await pipe.receive()).input
        match request.WhichOneof("message"):
            case "stdin":
                await pipe.send(output(stdout=request.stdin))
            case "resize":
                await pipe.send(output(stderr=f"{request.resize.rows}x{request.resize.columns}".encode()))
            case "signal":
                await pipe.send(output(exit_code=128 + request.signal))
            case "stdin_closed":
                await pipe.send(output(exit_code=0))


async def responses(world: api_world.World, *requests: pb.ExecRequest) -> list[pb.ExecResponse]:
    async def sent() -> AsyncIterator[pb.ExecRequest]:
        for request in requests:
            yield request

    return [response async for response in world.stub.Exec(sent())]


async def refused(world: api_world.World, *requests: pb.ExecRequest) -> tuple[grpc.StatusCode, pb.Error]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await responses(world, *requests)
    return refusal(raised.value)


async def with_web(world: api_world.World) -> None:
    world.streams.agents["id-of-n1"] = cat
    await world.put(node("n1"), task("web-1-a", node="id-of-n1"))


@aio.bounded(20)
async def test_input_output_and_exit_code_are_carried(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        size = pb.TerminalSize(rows=24, columns=80)
        answers = await responses(
            world,
            start("web-1-a"),
            pb.ExecRequest(stdin=b"hello"),
            pb.ExecRequest(resize=size),
            pb.ExecRequest(signal=15),
        )
        assert answers == [
            pb.ExecResponse(started="web-1-a"),
            pb.ExecResponse(stdout=b"hello"),
            pb.ExecResponse(stderr=b"24x80"),
            pb.ExecResponse(exit_code=143),
        ]
        assert world.streams.asked[0].exec.start.command == ["cat"]


@aio.bounded(20)
async def test_the_end_of_the_callers_stream_closes_the_input(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        answers = await responses(world, start(), pb.ExecRequest(stdin=b"x"))
        assert answers[-1] == pb.ExecResponse(exit_code=0)


@aio.bounded(20)
async def test_a_service_stands_for_a_ready_task_of_it(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        unready = task("web-2-b", node="id-of-n2")
        unready.status.ready = False
        unready.meta.created_at += 1
        await world.put(unready, task("web-3-c", started=False))
        assert (await responses(world, start()))[0].started == "web-1-a"


@aio.bounded(20)
async def test_a_caller_that_goes_away_lets_go_of_the_command(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def waits(pipe: Pipe, asked: wire.OpenStream) -> None:
        await pipe.send(output(started=asked.exec.task_id))
        try:
            while True:
                await pipe.receive()
        finally:
            ended.set()

    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        world.streams.agents["id-of-n1"] = waits
        call = world.stub.Exec()
        await call.write(start())
        assert (await call.read()).started == "web-1-a"
        call.cancel()
        await aio.within(5, ended.wait(), what="the agent hears that the caller has gone")


@aio.bounded(20)
async def test_a_node_that_is_lost_ends_the_call_with_its_name(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        call = world.stub.Exec()
        await call.write(start())
        await call.read()
        await world.streams.lose("id-of-n1")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert error.message == "web-1-a on node n1 was lost before the command ended: connection reset"
        code, error = await refused(world, start())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "n1 cannot be reached: its agent has no session" in error.message


@aio.bounded(20)
async def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    async def no_such_task(pipe: Pipe, _: wire.OpenStream) -> None:
        await pipe.send(wire.StreamFrame(error=pb.Error(message="no container of that name runs here")))

    async with api_world.opened(tmp_path) as world:
        await with_web(world)
        await world.put(task("db-1-a", service="db", started=False))
        await world.stub.Apply(api_world.apply_request(service("empty")))
        for request, expected, part in (
            (start("wbe"), grpc.StatusCode.NOT_FOUND, "wbe"),
            (start("db-1-a"), grpc.StatusCode.FAILED_PRECONDITION, "it is PENDING"),
            (start("db"), grpc.StatusCode.FAILED_PRECONDITION, "no task of Service default/db runs"),
            (start("empty"), grpc.StatusCode.FAILED_PRECONDITION, "no task of Service default/empty runs"),
            (pb.ExecRequest(stdin=b"x"), grpc.StatusCode.INVALID_ARGUMENT, "first message"),
            (pb.ExecRequest(start=pb.ExecStart(target="web")), grpc.StatusCode.INVALID_ARGUMENT, "a command"),
        ):
            code, error = await refused(world, request)
            assert code is expected, request
            assert part in error.message
        world.streams.agents["id-of-n1"] = no_such_task
        code, error = await refused(world, start())
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.message == "web-1-a on node n1: no container of that name runs here"

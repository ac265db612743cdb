"""The prober against servers that speak gRPC's health checking protocol, or do not."""

import contextlib
import socket
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from agent.core.probes import Answer
from protos.orch.v1 import objects_pb2 as pb
from tests.contract.agent.test_prober import HOST, ask
from tests.support.aio import bounded


@contextlib.asynccontextmanager
async def health_server(statuses: dict[str, int]) -> AsyncIterator[int]:
    """A server of the health checking protocol, on the wire's level: it knows nothing of our code's messages."""

    async def check(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        service = request[2:].decode() if request else ""
        if service not in statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return bytes([0x08, statuses[service]]) if statuses[service] else b""

    handler = grpc.unary_unary_rpc_method_handler(check)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("", ""),
        ("shop.Cart", "NOT_SERVING"),
        ("shop.New", "UNKNOWN"),
        ("shop.Odd", "status 9"),
        ("shop.None", "the server knows no service 'shop.None'"),
    ],
)
@bounded(20)
async def test_grpc(service: str, message: str) -> None:
    """SERVING is good, for the server as a whole or one of its services."""
    async with health_server({"": 1, "shop.Cart": 2, "shop.New": 0, "shop.Odd": 9}) as port:
        answer = await ask(port, grpc=pb.GrpcProbe(port=str(port), service=service))
        assert answer == Answer(good=not message, message=message)


@bounded(20)
async def test_a_grpc_server_without_health() -> None:
    """Told as what it is: something is missing in the program."""
    server = grpc.aio.server()
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        answer = await ask(port, grpc=pb.GrpcProbe(port=str(port)))
        assert answer == Answer(good=False, message="the server has no health service")
    finally:
        await server.stop(0)


@bounded(20)
async def test_grpc_sees_a_server_that_came_up_at_once() -> None:
    """The library waits before it connects again to what has refused; a probe does not."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((HOST, 0))
        port = holder.getsockname()[1]
        for _ in range(3):
            assert not (await ask(port, grpc=pb.GrpcProbe(port=str(port)))).good
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(())
        server.add_insecure_port(f"{HOST}:{port}")
        await server.start()
        try:
            answer = await ask(port, grpc=pb.GrpcProbe(port=str(port)))
            assert answer.message == "the server has no health service"
        finally:
            await server.stop(0)

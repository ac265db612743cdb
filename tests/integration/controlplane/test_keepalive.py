"""How the links to agents are watched: pings are welcome, and silence is noticed."""

# ruff: noqa: ARG002, N802 - gRPC gives the names and the arguments

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from agent import rpc as agent_rpc
from controlplane import rpc
from protos.answering import Context
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc
from tests.support import aio

CLIENT = """
import asyncio
from agent import rpc
from protos.orch.v1 import dispatcher_pb2 as wire, dispatcher_pb2_grpc

async def main():
    call = dispatcher_pb2_grpc.DispatcherStub(rpc.channel({address!r})).Session()
    await call.write(wire.AgentMessage())
    await call.read()

asyncio.run(main())
"""


class Listener(dispatcher_pb2_grpc.DispatcherServicer):
    """Serves sessions that say nothing."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def Session(  # type: ignore[override]  # it writes
        self, request_iterator: AsyncIterator[wire.AgentMessage], context: Context
    ) -> None:
        try:
            async for _ in request_iterator:
                self.began.set()
        finally:
            self.ended.set()


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[Listener, str]]:
    listener, server = Listener(), rpc.server()
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(listener, server)
    (port,) = rpc.listen(server, ["127.0.0.1:0"])
    await server.start()
    try:
        yield listener, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@aio.bounded(20)
async def test_an_idle_agent_that_pings_every_second_is_not_hung_up_on() -> None:
    async with listening() as (listener, address), agent_rpc.channel(address) as channel:
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()
        await call.write(wire.AgentMessage())
        # By default a server answers the third needless ping, here after 3 s, by hanging up.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.ended.wait(), 5)
        assert not call.done()
        call.cancel()


@aio.bounded(20)
async def test_an_agent_whose_machine_stands_still_is_noticed_within_three_seconds() -> None:
    async with listening() as (listener, address):
        client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT.format(address=address))
        try:
            await aio.within(10, listener.began.wait(), what="the client opens its session")
            client.send_signal(signal.SIGSTOP)
            started = asyncio.get_running_loop().time()
            await aio.within(8, listener.ended.wait(), what="the server notices")
            # One second to the next ping and two for its answer; the rest is for a busy machine.
            assert asyncio.get_running_loop().time() - started < 5
        finally:
            client.kill()
            await client.wait()

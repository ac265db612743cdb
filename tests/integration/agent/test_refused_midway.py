"""An agent that is refused while it talks hears why: a session that ends in the middle of a report says so."""

# ruff: noqa: N802 - gRPC gives the name

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from agent import rpc
from controlplane import rpc as server_rpc
from protos.answering import Context
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc
from tests.support import aio

ROUNDS = 30
"""In nine rounds of ten, the call ends while a message is sent."""
REPORT = wire.AgentMessage(statuses=wire.StatusReport(tasks=[wire.TaskReport(task_id="x" * 100_000)]))


class Refusing(dispatcher_pb2_grpc.DispatcherServicer):
    """Ends each session at its first message."""

    async def Session(  # type: ignore[override]  # it writes
        self, request_iterator: AsyncIterator[wire.AgentMessage], context: Context
    ) -> None:
        async for _ in request_iterator:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "node n1 was removed")


async def _end_while_sending(channel: grpc.aio.Channel) -> str:
    call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()  # type: ignore[call-arg]  # it wants an iterator
    link: rpc.CallLink[wire.AgentMessage, wire.LeaderMessage] = rpc.CallLink(call, "leader:1", linger_s=0)
    with pytest.raises(LinkLost) as lost:
        await _talk(link)
    await link.close()
    return str(lost.value)


async def _talk(link: Link[wire.AgentMessage, wire.LeaderMessage]) -> None:
    while True:
        await link.send(REPORT)


@aio.bounded(60)
async def test_why_a_session_is_ended_is_heard_in_the_middle_of_a_message() -> None:
    """gRPC itself forgets it for what it could not send."""
    server = server_rpc.server()
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(Refusing(), server)
    (port,) = server_rpc.listen(server, ["127.0.0.1:0"])
    await server.start()
    try:
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            heard = [await _end_while_sending(channel) for _ in range(ROUNDS)]
    finally:
        await server.stop(0)
    assert set(heard) == {"leader:1: node n1 was removed"}

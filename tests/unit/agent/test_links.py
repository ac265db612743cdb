"""Links over real gRPC: what a closed one leaves behind."""

import asyncio
import gc
from pathlib import Path

from agent.rpc import Server
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support.aio import bounded, until
from tests.support.fake_leader import FakeLeader


@bounded(20)
async def test_a_link_closed_by_a_cancelled_task_collects_its_pending_read(tmp_path: Path) -> None:
    """Otherwise an agent that is told to end prints the traceback of a read that nobody waits for."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))
    leader = FakeLeader(ImageStore(tmp_path / "images"))
    server = Server("n")
    address = await leader.start(tmp_path / "leader.sock")
    assigned = asyncio.Event()

    async def hold_a_session() -> None:
        link = await server.connect(address)
        try:
            await link.send(dpb.AgentMessage(register=dpb.Register(node_id="n")))
            while (await link.receive()).WhichOneof("message") != "assignment":
                pass
            assigned.set()
            await link.receive()
        finally:
            await link.close()

    async with asyncio.TaskGroup() as group:
        session = group.create_task(hold_a_session())
        await assigned.wait()
        session.cancel()
    await server.close()
    await leader.stop()
    del session
    await until(lambda: len(asyncio.all_tasks()) == 1, what="everything has ended but this test")
    gc.collect()
    assert complaints == []


@bounded(20)
async def test_several_writers_share_a_link(tmp_path: Path) -> None:
    """gRPC takes one message at a time and ends the call otherwise; heartbeats and reports need not know."""
    leader = FakeLeader(ImageStore(tmp_path / "images"))
    server = Server("n")
    link = await server.connect(await leader.start(tmp_path / "leader.sock"))
    await link.send(dpb.AgentMessage(register=dpb.Register(node_id="n")))
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(link.send(dpb.AgentMessage(heartbeat=dpb.Heartbeat(sequence=number))))
    await until(lambda: leader.heartbeats == 100, what="every heartbeat has arrived")
    await link.close()
    await server.close()
    await leader.stop()

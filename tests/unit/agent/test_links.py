"""Links over real gRPC: what a closed one leaves behind."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc.aio
import pytest

from agent.adapters.images import StoredImages
from agent.errors import Temporary
from agent.rpc import Server
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc as rpc
from protos.orch.v1 import trust_pb2 as tpb
from protos.orch.v1 import trust_pb2_grpc as trust_rpc
from tests.support import blobserving
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


class Slow(FakeLeader):
    """Answers nothing about images."""

    def __init__(self, store: ImageStore) -> None:
        super().__init__(store)
        self.asked = 0

    async def ResolveImage(  # noqa: N802
        self, request: dpb.ResolveImageRequest, context: grpc.aio.ServicerContext
    ) -> dpb.ResolveImageResponse:
        self.asked += 1
        await asyncio.Event().wait()
        return await super().ResolveImage(request, context)


class SlowBlobs(blobserving.Blobs):
    """Sends one chunk, and no other."""

    async def Fetch(  # noqa: N802
        self, request: dpb.FetchBlobRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[dpb.FetchBlobResponse]:
        del request, context
        yield dpb.FetchBlobResponse(chunk=b"a")
        await asyncio.Event().wait()


@bounded(20)
async def test_a_session_with_another_server_ends_no_task_that_waits_for_an_image(tmp_path: Path) -> None:
    """The old channel is closed; gRPC calls that a cancellation, which nobody who waits for an image survives."""
    leader = Slow(ImageStore(tmp_path / "images"))
    server = Server("n")
    await server.connect(await leader.start(tmp_path / "leader.sock"))
    here = StoredImages(tmp_path / "node", server)
    async with asyncio.TaskGroup() as group:
        life = group.create_task(here.run())
        await here.started.wait()
        preparing = group.create_task(_why_temporary(here.prepare("hello:1", "")))
        await until(lambda: leader.asked > 0, what="the leader is asked")
        await server.connect(f"unix:{tmp_path / 'next.sock'}")
        assert (await preparing).reason == "NoControlPlane"
        life.cancel()
    await server.close()
    await leader.stop()


@bounded(20)
async def test_a_blob_that_a_closed_channel_cuts_is_asked_for_again(tmp_path: Path) -> None:
    leader = grpc.aio.server()
    rpc.add_BlobsServicer_to_server(SlowBlobs(ImageStore(tmp_path / "images")), leader)
    leader.add_insecure_port(f"unix:{tmp_path / 'leader.sock'}")
    await leader.start()
    server = Server("n")
    await server.connect(f"unix:{tmp_path / 'leader.sock'}")
    chunks = server.fetch(f"sha256:{'a' * 64}", 0)
    assert await anext(chunks) == b"a"
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_why_temporary(anext(chunks)))
        await asyncio.sleep(0)
        await server.connect(f"unix:{tmp_path / 'next.sock'}")
        assert (await reading).reason == "NoControlPlane"
    await server.close()
    await leader.stop(0)


class SlowTrust(trust_rpc.TrustServicer):
    """Is asked for a certificate, and answers nothing."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def Renew(  # noqa: N802
        self, request: tpb.RenewRequest, context: grpc.aio.ServicerContext
    ) -> tpb.RenewResponse:
        del request, context
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing wakes it")


@bounded(20)
async def test_a_session_with_another_server_does_not_end_the_renewing_of_certificates(tmp_path: Path) -> None:
    """It is tried again; a task that took itself for cancelled would renew none ever again."""
    leader, slow = grpc.aio.server(), SlowTrust()
    trust_rpc.add_TrustServicer_to_server(slow, leader)
    leader.add_insecure_port(f"unix:{tmp_path / 'leader.sock'}")
    await leader.start()
    server = Server("n")
    await server.connect(f"unix:{tmp_path / 'leader.sock'}")
    async with asyncio.TaskGroup() as group:
        renewing = group.create_task(_why_temporary(server.renew(tpb.RenewRequest())))
        await slow.asked.wait()
        await server.connect(f"unix:{tmp_path / 'next.sock'}")
        assert (await renewing).reason == "NoControlPlane"
    await server.close()
    await leader.stop(0)


async def _why_temporary(work: Awaitable[object]) -> Temporary:
    with pytest.raises(Temporary) as caught:
        await work
    return caught.value

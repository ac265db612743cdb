"""Ten nodes want one image at once: the control plane sends it twice, and they give it to each other."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from agent.adapters.blobserver import BlobServer, serving
from agent.adapters.downloads import Downloads
from agent.core import sharing
from agent.holdings import Holdings
from agent.rpc import Server
from controlplane.store import memory
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.controlplane import test_push
from tests.support import aio, etcd, instances

MIB = 1024 * 1024
NODES = 10
BEAT_S = 2.0
SIZE_BYTES = int(os.environ.get("ORCH_TEST_SHARED_MIB", "24")) * MIB


class Node:
    """The part of an agent that fetches images and gives them to others."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.holdings = Holdings()
        self.store = ImageStore(folder)
        self.server = Server(name)
        self.blobs = BlobServer(self.store, self.holdings, sharing.Limits())
        self.downloads = Downloads(self.store, self.server, lambda digest: self.holdings.add([digest]))

    @contextlib.asynccontextmanager
    async def connected(self, address: str) -> AsyncIterator[None]:
        """It holds a session, and tells in it what it has."""
        async with serving(self.blobs, "127.0.0.1", etcd.free_port()) as port, asyncio.TaskGroup() as group:
            link = await self.server.connect(address)
            description = pb.NodeDescription(hostname=self.name, address="127.0.0.1", blob_port=port)
            register = wire.Register(node_id=self.name, node_name=self.name, description=description)
            await link.send(wire.AgentMessage(register=register))
            await link.receive()

            async def tell() -> None:
                told: frozenset[str] = frozenset()
                while True:
                    news, told = await self.holdings.news(told)
                    await link.send(wire.AgentMessage(blobs_held=news))

            async def listen() -> None:
                while True:
                    await link.receive()

            async def beat() -> None:
                while True:
                    await asyncio.sleep(BEAT_S)
                    await link.send(wire.AgentMessage(heartbeat=wire.Heartbeat()))

            tasks = [group.create_task(each) for each in (tell(), listen(), beat())]
            yield
            for task in tasks:
                task.cancel()
        await self.server.close()


@aio.bounded(240)
async def test_the_control_plane_sends_a_layer_twice_however_many_nodes_want_it(tmp_path: Path) -> None:
    mine = ImageStore(tmp_path / "mine")
    layer = build_image(mine, [File(path="data", content=os.urandom(SIZE_BYTES))], Config(), "web:1").layers[0]
    nodes = [Node(f"n{number}", tmp_path / f"n{number}") for number in range(NODES)]
    async with (
        instances.instances(memory.MemoryStore(), tmp_path, "cp1") as (cp1,),
        contextlib.AsyncExitStack() as stack,
    ):
        async with cp1.stub() as stub:
            await test_push.push(stub, mine, "web:1")
        for node in nodes:
            await stack.enter_async_context(node.connected(cp1.address))
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(node.downloads.fetch(layer.digest, layer.size_bytes))
        took_s = time.monotonic() - began
        given = sum(node.blobs.served_bytes for node in nodes)
        by_control_plane = NODES * layer.size_bytes - given
        all_mib = NODES * layer.size_bytes / MIB
        print(f"{by_control_plane / MIB:.0f} of {all_mib:.0f} MiB by the control plane, {took_s:.1f} s")
        assert all(node.store.has(layer.digest) for node in nodes)
        assert by_control_plane <= 2 * layer.size_bytes


@aio.bounded(60)
async def test_another_leader_is_told_who_has_what(tmp_path: Path) -> None:
    """A node tells it in each session; one that goes is forgotten with its session."""
    async with instances.instances(memory.MemoryStore(), tmp_path, "cp1") as (cp1,):
        node, other = Node("n1", tmp_path / "n1"), Node("n2", tmp_path / "n2")
        digest = f"sha256:{'a' * 64}"
        node.holdings.add([digest])
        async with other.connected(cp1.address):
            async with node.connected(cp1.address):
                found = await other.server.find(digest, [])
                assert len(found.addresses) == 1
                assert not (await node.server.find(digest, [])).addresses, "it has it itself"
            await aio.until(lambda: not cp1.instance.dispatcher.blob_addresses(digest), what="it is forgotten")

"""Nodes give layers of images to members of their cluster alone, and nobody else stands in for a node."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agent.adapters.blobserver import BlobServer, serving
from agent.core import sharing
from agent.errors import Temporary
from agent.holdings import Holdings
from agent.members import Members
from agent.rpc import Server
from controlplane import rpc
from controlplane.images.files import Threads
from controlplane.images.sources import Fetcher, Source
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc
from tests.support import aio, etcd, trusted
from tests.support.handshakes import handshake
from trust import credentials
from trust.core.identity import Role
from trust.folder import Folder, Material


@dataclasses.dataclass(slots=True, kw_only=True)
class Giver:
    """A node that serves one image. `peers`: the ids of the nodes that it was told of."""

    store: ImageStore
    digest: str
    layer: str
    server: Server
    peers: set[str] = dataclasses.field(default_factory=set)
    address: str = ""

    @property
    def content(self) -> bytes:
        """The layer's."""
        with self.store.open(self.layer) as file:
            return file.read()


@contextlib.asynccontextmanager
async def giver(folder: Path, own: Material) -> AsyncIterator[Giver]:
    """It serves in the block."""
    store = ImageStore(folder)
    image = build_image(store, [File(path="hello", content=b"hello" * 1000)], name="web:1", config=Config())
    made = Giver(
        store=store,
        digest=image.digest,
        layer=image.layers[0].digest,
        server=Server(own.identity.name, own),
    )
    held = Holdings()
    held.add([image.digest, image.config_digest, *(layer.digest for layer in image.layers)])
    blobs = BlobServer(store, held, sharing.Limits(), Members(lambda: made.peers))
    async with serving(blobs, "127.0.0.1", etcd.free_port(), made.server.shown()) as port:
        made.address = f"127.0.0.1:{port}"
        yield made


async def fetched(own: Material | None, address: str, digest: str) -> bytes:
    """What a node gets from another one, as agents do. Raises Temporary."""
    server = Server("n", own)
    try:
        return b"".join([chunk async for chunk in server.fetch(digest, 0, address)])
    finally:
        await server.close()


@aio.bounded(60)
async def test_a_node_gives_to_the_nodes_that_it_was_told_of_and_to_no_other(tmp_path: Path) -> None:
    """One that was deleted is told of no more, and gets nothing although its certificate is good for weeks."""
    async with trusted.cluster(tmp_path) as made:
        own, other = await made.join("n1"), await made.join("n2")
        async with giver(tmp_path / "store", own) as node:
            node.peers = {"n2"}
            assert await fetched(other, node.address, node.layer) == node.content
            node.peers = set()
            with pytest.raises(Temporary, match="node n2 may not fetch from a node"):
                await fetched(other, node.address, node.layer)


@aio.bounded(60)
async def test_a_node_gives_nothing_to_people_strangers_and_in_the_clear(tmp_path: Path) -> None:
    """People have certificates of the same root; strangers and older TLS do not get through the handshake."""
    trusted.found(tmp_path / "other")
    stranger = Folder(tmp_path / "other" / "admin").load()
    async with trusted.cluster(tmp_path) as made:
        mixed = Material(key=stranger.key, chain=stranger.chain, roots=made.admin.roots, facts=stranger.facts)
        async with giver(tmp_path / "store", await made.join("n1")) as node:
            with pytest.raises(Temporary, match="admin root may not fetch from a node"):
                await fetched(made.admin, node.address, node.layer)
            for nobody in (mixed, None):
                with pytest.raises(Temporary):
                    await fetched(nobody, node.address, node.layer)
            older, _ = await handshake(node.address, "-tls1_2")
            _, said = await handshake(node.address, "-tls1_3", "-CAfile", str(tmp_path / "cp" / "roots.pem"))
            assert older != 0
            assert "Verify return code: 0 (ok)" in said


@aio.bounded(60)
async def test_nobody_but_a_node_is_believed_to_be_one(tmp_path: Path) -> None:
    """Neither a person nor another cluster's node, at whatever address they answer."""
    other = trusted.found(tmp_path / "other")
    assert other["cluster"]
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        for impostor in (made.admin, Folder(tmp_path / "other" / "cp").load()):
            async with giver(tmp_path / impostor.identity.name, impostor) as liar:
                with pytest.raises(Temporary, match="it is no node of the cluster that this node has joined"):
                    await fetched(own, liar.address, liar.layer)


@aio.bounded(60)
async def test_a_node_whose_certificate_was_renewed_shows_the_new_one(tmp_path: Path) -> None:
    """Nothing is started anew; who calls next sees it."""
    async with trusted.cluster(tmp_path) as made:
        first, other = await made.join("n1"), await made.join("n2")
        async with giver(tmp_path / "store", first) as node:
            node.peers = {"n2"}
            await fetched(other, node.address, node.layer)
            node.server.own = await made.join("n1-again")
            assert node.server.own.facts.key_digest != first.facts.key_digest
            _, said = await handshake(node.address, "-tls1_3", "-showcerts")
            assert "CN = n1-again" in said
            await fetched(other, node.address, node.layer)


@aio.bounded(60)
async def test_an_instance_gets_an_image_from_a_node_and_believes_no_instance_to_be_one(tmp_path: Path) -> None:
    """That it comes over TLS is seen at the node, which lets nobody else in."""
    async with trusted.cluster(tmp_path) as made:
        own, store, threads = made.standing.own, ImageStore(tmp_path / "mine"), Threads()

        async def anything(_wanted_bytes: int) -> None:
            return

        async with giver(tmp_path / "store", await made.join("n1")) as node:

            async def sources(_digest: str) -> list[Source]:
                return [Source(address=made.address, role=Role.NODE), Source(address=node.address, role=Role.NODE)]

            fetcher = Fetcher(store, threads, sources, lambda address, role: rpc.channel(address, role, own))
            assert await fetcher.fetch(node.digest, room=anything)
            assert store.has(node.layer)
            async with rpc.channel(made.address, Role.NODE, own) as channel:
                call = dispatcher_pb2_grpc.BlobsStub(channel).Fetch(wire.FetchBlobRequest(digest=node.digest))
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call.read()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await threads.close()
        assert credentials.channel_options(Role.NODE) != credentials.CHANNEL_OPTIONS

"""Nodes give layers of images to members of their cluster alone, and nobody else stands in for a node."""

import asyncio
import contextlib
import dataclasses
import random
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.adapters.blobserver import BlobServer, serving
from agent.core import sharing
from agent.errors import Temporary
from agent.fetchers import Fetchers
from agent.holdings import Holdings
from agent.members import Members
from agent.rpc import Server
from controlplane import main, rpc
from controlplane.images.files import Threads
from controlplane.images.sources import Fetcher, Source
from images.image import Config
from images.rootfs import File, build_image
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc, objects_pb2, trust_pb2
from tests.support import aio, etcd, trusted
from tests.support.handshakes import handshake
from trust import credentials
from trust.core.identity import Role
from trust.folder import Folder, Material


@dataclasses.dataclass(slots=True, kw_only=True)
class Giver:
    """A node that serves one image. `network`: what it was told of others; `refused`: what it is told when it asks
    whether others may have a blob.
    """

    store: ImageStore
    digest: str
    layer: str
    server: Server
    blobs: BlobServer
    network: wire.NodeNetwork | None = None
    refused: str = ""
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    address: str = ""

    async def may_fetch(self, node_id: str, digest: str) -> str:
        """What it asks the control plane."""
        self.asked.append((node_id, digest))
        return self.refused

    def told(self, network: wire.NodeNetwork | None) -> None:
        """The leader has told it another network."""
        self.network = network
        self.blobs.look_again()

    def told_of(self, *nodes: str, since: int = 1) -> None:
        """The leader has told it of these nodes alone."""
        self.told(wire.NodeNetwork(peers=[wire.NetworkPeer(node_id=one, trusted_since=since) for one in nodes]))

    @property
    def content(self) -> bytes:
        """The layer's."""
        with self.store.open(self.layer) as file:
            return file.read()


@contextlib.asynccontextmanager
async def giver(folder: Path, own: Material, *, size_bytes: int = 5_000) -> AsyncIterator[Giver]:
    """It serves in the block."""
    store = ImageStore(folder)
    content = random.Random(1).randbytes(size_bytes)
    image = build_image(store, [File(path="hello", content=content)], name="web:1", config=Config())
    held = Holdings()
    held.add([image.digest, image.config_digest, *(layer.digest for layer in image.layers)])

    async def may_fetch(node_id: str, digest: str) -> str:
        return await made.may_fetch(node_id, digest)

    fetchers = Fetchers(may_fetch, Members(lambda: made.network), main.now_ms)
    blobs = BlobServer(store, held, sharing.Limits(), fetchers)
    made = Giver(
        blobs=blobs,
        store=store,
        digest=image.digest,
        layer=image.layers[0].digest,
        server=Server(own.identity.name, own),
    )
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
            node.told_of("n2")
            assert await fetched(other, node.address, node.layer) == node.content
            node.told_of()
            with pytest.raises(Temporary, match="node n2 may not fetch from a node"):
                await fetched(other, node.address, node.layer)


@aio.bounded(60)
async def test_a_node_gives_what_the_tasks_of_the_other_need_and_nothing_else(tmp_path: Path) -> None:
    """As the control plane says of each blob; of what this node does not have, and to strangers, it asks nothing."""
    async with trusted.cluster(tmp_path) as made:
        own, other = await made.join("n1"), await made.join("n2")
        async with giver(tmp_path / "store", own) as node:
            with pytest.raises(Temporary, match="may not fetch from a node"):
                await fetched(other, node.address, node.layer)
            node.told_of("n2")
            with pytest.raises(Temporary, match="does not have"):
                await fetched(other, node.address, f"sha256:{'0' * 64}")
            assert node.asked == []
            node.refused = "no task of the node n2 runs an image with the blob"
            with pytest.raises(Temporary, match="no task of the node n2"):
                await fetched(other, node.address, node.layer)
            node.refused = ""
            assert await fetched(other, node.address, node.layer) == node.content
            assert node.asked == [("n2", node.layer)] * 2


@aio.bounded(60)
async def test_who_is_revoked_loses_what_it_is_fetching_within_a_second(tmp_path: Path) -> None:
    """Though its node is not deleted; the leader tells the others at once. It reads slowly what it fetches."""
    async with trusted.cluster(tmp_path) as made:
        own, other = await made.join("n1"), await made.join("n2")
        async with (
            giver(tmp_path / "store", own, size_bytes=32 << 20) as node,
            trusted.session(made, own) as first,
            trusted.session(made, other, "10.0.0.2"),
            rpc.channel(node.address, Role.NODE, other) as channel,
        ):
            async with asyncio.TaskGroup() as group:
                obeying = group.create_task(_obey(first, node))
                told = lambda: node.network is not None and any(peer.trusted_since for peer in node.network.peers)  # noqa: E731
                await aio.until(told, what="n1 is told of n2", timeout_s=20)
                call = dispatcher_pb2_grpc.BlobsStub(channel).Fetch(wire.FetchBlobRequest(digest=node.layer))
                await call.read()
                assert node.blobs.transfers == 1
                async with made.trust(made.admin) as admin:
                    await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name="node:n2"))
                await aio.until(lambda: node.blobs.transfers == 0, what="the transfer has ended", timeout_s=1)
                obeying.cancel()
            assert made.instance.cache.snapshot().get(objects_pb2.Node, "n2") is not None
            with pytest.raises(Temporary, match="node n2 may not fetch from a node"):
                await fetched(other, node.address, node.layer)


async def _read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        continue


async def _obey(session: Any, node: Giver) -> None:
    """What an agent does with what it is told of the network."""
    while (message := await session.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
        if message.assignment.HasField("network"):
            node.told(message.assignment.network)


@aio.bounded(60)
async def test_a_certificate_from_before_a_node_joined_anew_is_worth_nothing_among_nodes(tmp_path: Path) -> None:
    """Its key may be who knows where; the new one is believed, and so is a renewed one."""
    async with trusted.cluster(tmp_path) as made:
        own, old = await made.join("n1"), await made.join("n2")
        async with made.trust(made.admin) as admin:
            await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name="node:n2"))
        made.ahead_ms = 10_000
        shutil.rmtree(tmp_path / "n2")
        new = await made.join("n2")
        since = made.standing.registry.members["node:n2"].joined_at
        async with giver(tmp_path / "store", own) as node:
            node.told_of("n2", since=since)
            assert await fetched(new, node.address, node.layer) == node.content
            with pytest.raises(Temporary, match="the certificate of node n2 is from before they joined this cluster"):
                await fetched(old, node.address, node.layer)


@aio.bounded(60)
async def test_an_instance_that_was_put_out_gets_nothing_from_nodes(tmp_path: Path) -> None:
    """As the leader tells them."""
    async with trusted.cluster(tmp_path) as made:
        own, other = await made.join("n1"), await made.join("cp2", made.tokens["controlplane_token"])
        async with giver(tmp_path / "store", own) as node, trusted.session(made, own) as first:
            async with asyncio.TaskGroup() as group:
                obeying = group.create_task(_obey(first, node))
                names = lambda: sorted(node.network.instances) if node.network is not None else []  # noqa: E731
                await aio.until(lambda: names() == ["cp1", "cp2"], what="n1 is told of cp2", timeout_s=20)
                assert await fetched(other, node.address, node.layer) == node.content
                async with made.trust(made.admin) as admin:
                    await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name="controlplane:cp2"))
                await aio.until(lambda: names() == ["cp1"], what="n1 is told that it is gone", timeout_s=1)
                obeying.cancel()
            with pytest.raises(Temporary, match="controlplane cp2 may not fetch from a node"):
                await fetched(other, node.address, node.layer)


@aio.bounded(60)
async def test_who_takes_nothing_of_what_it_fetches_is_hung_up_on(tmp_path: Path) -> None:
    """Its place is free again for those who read."""
    async with trusted.cluster(tmp_path) as made:
        own, other = await made.join("n1"), await made.join("n2")
        async with giver(tmp_path / "store", own, size_bytes=32 << 20) as node:
            node.told_of("n2")
            node.blobs.patience_s = 0.3
            async with rpc.channel(node.address, Role.NODE, other) as channel:
                call = dispatcher_pb2_grpc.BlobsStub(channel).Fetch(wire.FetchBlobRequest(digest=node.layer))
                await call.read()
                await aio.until(lambda: node.blobs.transfers == 0, what="the place is free", timeout_s=10)
                with pytest.raises(grpc.aio.AioRpcError):
                    await _read_to_the_end(call)
            assert await fetched(other, node.address, node.layer) == node.content


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
            node.told_of("n2")
            await fetched(other, node.address, node.layer)
            node.server.own = await made.join("n1-again")
            assert node.server.own.facts.key_digest != first.facts.key_digest
            _, said = await handshake(node.address, "-tls1_3", "-showcerts")
            assert re.search("CN ?= ?n1-again", said), said
            await fetched(other, node.address, node.layer)


@aio.bounded(60)
async def test_an_instance_gets_an_image_from_a_node_and_believes_no_instance_to_be_one(tmp_path: Path) -> None:
    """That it comes over TLS is seen at the node, which lets nobody else in."""
    async with trusted.cluster(tmp_path) as made:
        own, store, threads = made.standing.own, ImageStore(tmp_path / "mine"), Threads()

        async def anything(_wanted_bytes: int) -> None:
            return

        async with giver(tmp_path / "store", await made.join("n1")) as node:
            node.told(wire.NodeNetwork(instances={"cp1": 1}))

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

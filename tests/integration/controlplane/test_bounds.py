"""The bounds on calls at a real server with TLS: how our clients come back, and what becomes of those who do not."""

import asyncio
import dataclasses
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.rpc import Server
from controlplane.api.bounds import Times
from controlplane.core import limits
from controlplane.core.limits import DEFAULTS, Kind
from controlplane.store import memory
from images.store import ImageStore
from orchctl import client, who
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, objects_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, api_world, trusted
from tests.support.api_world import refusal
from trust import credentials
from trust.folder import Material

DATA, SETTINGS, PING, GOAWAY = 0, 4, 6, 7
ENHANCE_YOUR_CALM = 11
"""Kinds of frames, and a code (RFC 9113, 6 and 7)."""


def limited(*changes: str) -> limits.Limits:
    return limits.parse(list(changes), DEFAULTS)


@aio.bounded(60)
async def test_orchctl_comes_back_when_it_is_told_to_and_nobody_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once and five a second: seven calls take a second, and none fails."""
    few = limited("person.burst=2", "person.per_second=5")
    async with trusted.cluster(tmp_path, limits=few) as made:
        admin = made.admin
        monkeypatch.setattr(who, "material", lambda: admin)

        def call() -> None:
            with client.connect(made.address) as stub:
                for _ in range(7):
                    stub.Version(pb.VersionRequest(), timeout=client.CALL_TIMEOUT_S)

        began = time.monotonic()
        await asyncio.to_thread(call)
        assert time.monotonic() - began > 0.8


@aio.bounded(60)
async def test_who_does_not_come_back_is_told_the_limit_and_when_to(tmp_path: Path) -> None:
    """A caller of somebody else's making; others are not held up meanwhile."""
    few = limited("person.burst=2", "person.per_second=1")
    async with trusted.cluster(tmp_path, limits=few) as made:
        own = await made.person("ann", "viewer")
        async with made.control(own) as stub:
            for _ in range(2):
                await stub.Version(pb.VersionRequest())
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Version(pb.VersionRequest())
            code, said = refusal(refused.value)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert said.message == "viewer ann calls more than 1 times a second, after 2 at once"
            assert 0 < said.retry_after <= 1_001
            assert said.hint.startswith("come back in")
            pushback = dict(refused.value.trailing_metadata() or ())["grpc-retry-pushback-ms"]
            assert int(pushback) == said.retry_after
        async with made.control(made.admin) as other:
            await other.Version(pb.VersionRequest())


@aio.bounded(60)
async def test_an_agent_that_asks_too_often_waits_and_gets_its_answers(tmp_path: Path) -> None:
    """It is told so by the same words, and never loses its session over it."""
    few = limited("node.burst=3", "node.per_second=5")
    async with trusted.cluster(tmp_path, limits=few) as made:
        own = await made.join("n1")
        server = Server("n1", own)
        try:
            link = await server.connect(made.address)
            await link.send(trusted.register(own))
            assert (await link.receive()).WhichOneof("message") == "registered"
            began = time.monotonic()
            for _ in range(6):
                with pytest.raises(Exception, match="no task of the node n1 runs the image x:1"):
                    await server.resolve("x:1")
            assert time.monotonic() - began > 0.6
            assert made.instance.dispatcher.sessions.get("n1") is not None
            await link.close()
        finally:
            await server.close()


@aio.bounded(60)
async def test_streams_of_one_caller_are_bounded_and_make_room_when_they_end(tmp_path: Path) -> None:
    """The third watch is refused while two are open."""
    async with trusted.cluster(tmp_path, limits=limited("person.streams=2")) as made, made.control(made.admin) as stub:
        watch = pb.WatchRequest(selections=[pb.ListRequest(kind="service")])
        first, second = stub.Watch(watch), stub.Watch(watch)
        await first.read()
        await second.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Watch(watch).read()
        assert refusal(refused.value)[1].message == "admin root has 2 streams open, which is the most"
        first.cancel()

        async def lets_in() -> bool:
            call = stub.Watch(watch)
            try:
                await call.read()
            except grpc.aio.AioRpcError:
                return False
            call.cancel()
            return True

        async with asyncio.timeout(10):
            while not await lets_in():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.05)
        second.cancel()


@aio.bounded(60)
async def test_a_message_may_be_as_large_as_its_sender_s_limit(tmp_path: Path) -> None:
    """A person's here, and in any case gRPC's own."""
    small = limited("person.request_bytes=2000")
    async with trusted.cluster(tmp_path, limits=small) as made, made.control(made.admin) as stub:
        asked = pb.ListRequest(kind="x" * 1_900)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.List(asked)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.List(pb.ListRequest(kind="x" * 2_000))
        code, said = refusal(refused.value)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "is more than the 2000 that may be sent at once" in said.message
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.List(pb.ListRequest(kind="x" * (5 * limits.MIB)))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@aio.bounded(60)
async def test_what_is_no_message_of_the_call_is_answered_in_words(tmp_path: Path) -> None:
    """Whatever stands in it."""
    async with trusted.cluster(tmp_path) as made, made.channel(made.admin) as channel:
        for method in ("/orch.v1.Control/Apply", "/orch.v1.Trust/CreateToken"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(method)(b"\xff\xff\xff")
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details() == "the message is none of this call's"


@aio.bounded(60)
async def test_a_reader_that_does_not_read_loses_its_connection(tmp_path: Path) -> None:
    """So that nothing is kept for it; whoever reads is not disturbed."""
    times = Times(patience_s=0.5)
    async with trusted.cluster(tmp_path, times=times) as made:
        await _fill(made)
        watch = pb.WatchRequest(selections=[pb.ListRequest(kind="service")] * 30)
        async with made.control(made.admin) as good, _narrow(made, made.admin) as channel:
            reading = good.Watch(watch)
            await reading.read()
            lazy = control_pb2_grpc.ControlStub(channel).Watch(watch)
            await lazy.read()
            await aio.until(lambda: made.doorman.streams == 1, what="the lazy reader's stream has ended", timeout_s=20)
            assert made.connections.ended == 1
            with pytest.raises(grpc.aio.AioRpcError):
                await _read_to_the_end(lazy)
            assert not reading.done()
            reading.cancel()


async def _read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
        continue


async def _fill(made: trusted.Cluster) -> None:
    """A few megabytes of services."""
    async with made.control(made.admin) as stub:
        for number in range(20):
            service = api_world.service(f"s{number}", replicas=0)
            service.meta.annotations["text"] = "x" * 60_000
            service.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
            await stub.Apply(api_world.apply_request(service))


def _narrow(made: trusted.Cluster, own: Material) -> grpc.aio.Channel:
    """A channel that takes little more than what is asked for."""
    options = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1024),
        *credentials.CHANNEL_OPTIONS,
    )
    return grpc.aio.secure_channel(made.address, credentials.channel(own), options=options)


@aio.bounded(60)
async def test_an_upload_that_stands_still_is_ended(tmp_path: Path) -> None:
    """It is told so, and holds nothing."""
    async with trusted.cluster(tmp_path, times=Times(next_message_s=0.3)) as made, made.control(made.admin) as stub:
        call = stub.PushBlob()  # type: ignore[call-arg]  # the stubs want an iterator
        start = pb.PushBlobStart(digest="sha256:" + "a" * 64, size=1 << 20)
        await call.write(pb.PushBlobRequest(start=start))  # type: ignore[attr-defined]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        code, said = refusal(refused.value)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert said.message == "the next message did not come within 0.3 s"
        assert made.doorman.calls == 0


@aio.bounded(60)
async def test_no_call_is_answered_for_longer_than_the_server_likes(tmp_path: Path) -> None:
    """Whatever deadline its caller gives it, here none."""
    store = memory.MemoryStore()
    async with trusted.cluster(tmp_path, store, times=Times(call_s=0.2)) as made:
        store.pause_watches()  # an apply waits until it is seen
        async with made.control(made.admin) as stub:
            service = api_world.service(replicas=0)
            service.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Apply(api_world.apply_request(service))
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refusal(refused.value)[1].message == "Apply was not done within 0.2 s"
        store.resume_watches()


@aio.bounded(60)
async def test_connections_of_one_address_are_bounded_the_oldest_stay(tmp_path: Path) -> None:
    """Also such as never begin a handshake; another address is not concerned."""
    async with (
        trusted.cluster(tmp_path, limits=limited("all.connections=40")) as made,
        made.control(made.admin) as stub,
    ):
        await stub.Version(pb.VersionRequest())
        made.connections.look()
        host, port = made.address.split(":")
        idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(80)]
        other = socket.create_connection((host, int(port)), timeout=5, source_address=("127.0.0.2", 0))
        try:
            await aio.until(lambda: made.connections.ended >= 41, what="the newest are ended", timeout_s=15)
            await stub.Version(pb.VersionRequest())
            other.setblocking(False)
            with pytest.raises(BlockingIOError):  # nothing to read, and not ended
                other.recv(1)
        finally:
            for each in (*idle, other):
                each.close()


@aio.bounded(60)
async def test_a_handshake_that_never_ends_is_ended(tmp_path: Path) -> None:
    """In ten seconds, at the control plane's port and at the door."""
    async with trusted.cluster(tmp_path) as made:
        for address in (made.address, made.door):
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            began = time.monotonic()
            async with asyncio.timeout(20):
                while await reader.read(1000):
                    continue
            assert time.monotonic() - began > 5
            writer.close()


@aio.bounded(60)
async def test_pings_without_end_are_abuse(tmp_path: Path) -> None:
    """The hang-up is HTTP/2's `ENHANCE_YOUR_CALM`; those of agents, one a second, are none (test_keepalive.py)."""
    async with trusted.cluster(tmp_path) as made:
        reader, writer = await _dialed(made)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS))
        writer.write(_frame(PING, b"12345678") * 50)
        async with asyncio.timeout(20):
            while (kind := (head := await reader.readexactly(9))[3]) != GOAWAY:
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                assert kind != DATA
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        assert int.from_bytes(body[4:8], "big") == ENHANCE_YOUR_CALM
        writer.close()


async def _dialed(made: trusted.Cluster) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TLS, as the admin, with nothing said in it yet."""
    context = ssl.create_default_context(cafile=str(made.folder / "admin" / "roots.pem"))
    context.load_cert_chain(made.folder / "admin" / "identity.pem")
    context.set_alpn_protocols(["h2"])
    host, port = made.address.split(":")
    return await asyncio.open_connection(host, int(port), ssl=context, server_hostname="controlplane.orch")


def _frame(kind: int, body: bytes = b"") -> bytes:
    """A frame of HTTP/2 about the whole connection (RFC 9113, 4.1)."""
    return len(body).to_bytes(3, "big") + bytes([kind, 0, 0, 0, 0, 0]) + body


def test_the_defaults_are_more_than_a_cluster_of_five_thousand_needs() -> None:
    """Every agent may come back at once after the control plane was away."""
    node = DEFAULTS.callers[Kind.NODE]
    assert DEFAULTS.streams >= 5_000 * 2
    assert node.streams > 128, "what an agent opens at most, beside its session"
    assert dataclasses.asdict(DEFAULTS)["connections"] >= 1_024


@aio.bounded(60)
async def test_a_blob_is_asked_for_at_a_place_that_it_does_not_have(tmp_path: Path) -> None:
    """Behind its end there is nothing, however far; before its beginning is no place."""
    async with trusted.cluster(tmp_path) as made:
        async with made.control(made.admin) as stub:
            await stub.ImportImage(iter(trusted.archive_of_one_file("web:1")))
        image = ImageStore(tmp_path / "images").resolve("web:1")
        other = await made.join("cp2", made.tokens["controlplane_token"])
        async with made.blobs(other) as stub:
            for offset in (image.layers[0].size_bytes, 2**44 + 1, 2**63 - 1):
                request = wire.FetchBlobRequest(digest=image.layers[0].digest, offset=offset)
                assert [part async for part in stub.Fetch(request)] == []
            with pytest.raises(grpc.aio.AioRpcError, match="a blob has no byte -1") as refused:
                await stub.Fetch(wire.FetchBlobRequest(digest=image.digest, offset=-1)).read()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

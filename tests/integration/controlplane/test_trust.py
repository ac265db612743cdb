"""Who is let in, who may do what, and who is put out: over real TLS, with a real door."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2, trust_pb2
from tests.support import aio, api_world, trusted
from trust import joining
from trust.core.identity import Role
from trust.folder import IDENTITY, PENDING, Folder, Material

REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


async def refusal(call: "asyncio.Future[object] | grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str]:
    """What a call is refused with: message and hint."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]  # the stubs call it a call
    code, said = api_world.refusal(refused.value)
    assert code in REFUSED
    return said.message, said.hint


def register(own: Material, node_id: str = "") -> wire.AgentMessage:
    name = own.identity.name
    made = wire.Register(node_id=node_id or name, node_name=f"{name}-name")
    return wire.AgentMessage(register=made)


@contextlib.asynccontextmanager
async def session(made: trusted.Cluster, own: Material) -> AsyncIterator["grpc.aio.StreamStreamCall[object, object]"]:
    """A node's session that has begun."""
    async with made.dispatcher(own) as stub:
        call = stub.Session()  # type: ignore[call-arg]  # the stubs want an iterator
        await call.write(register(own))
        first = await call.read()
        assert first.WhichOneof("message") == "registered", first  # type: ignore[union-attr]
        yield call  # type: ignore[misc]
        call.cancel()


async def _end_of(call: "grpc.aio.StreamStreamCall[object, object]") -> tuple[grpc.StatusCode, str]:
    """How a stream ends, whatever comes before."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            continue
    return await call.code(), await call.details() or ""


@aio.bounded(60)
async def test_a_node_joins_by_the_door_and_opens_a_session(tmp_path: Path) -> None:
    """One command, well below a second; the key has not left its folder, and nobody else can read it."""
    async with trusted.cluster(tmp_path) as made:
        began = time.monotonic()
        own = await made.join("n1")
        took_s = time.monotonic() - began
        assert (own.identity.role, own.identity.name) == (Role.NODE, "n1")
        assert not (tmp_path / "n1" / PENDING).exists()
        assert (tmp_path / "n1" / IDENTITY).stat().st_mode & 0o777 == 0o600
        async with session(made, own):
            assert made.instance.dispatcher.sessions.get("n1") is not None
        assert took_s < 5, "the bound is for a busy machine; the figure stands in docs/trust.md"


@aio.bounded(60)
async def test_a_removed_node_loses_its_session_at_once_and_does_not_come_back(tmp_path: Path) -> None:
    """Within a second, with the reason; its certificate is valid for weeks to come, and worth nothing."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        async with session(made, own) as call, made.trust(made.admin) as admin:
            began = time.monotonic()
            await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name="node:n1"))
            code, said = await _end_of(call)
            assert time.monotonic() - began < 1
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "was removed from this cluster" in said
        async with made.dispatcher(own) as stub:
            message, hint = await refusal(stub.ResolveImage(wire.ResolveImageRequest(reference="x:1")))
        assert "node n1 was removed" in message
        assert "orchctl node join" in hint
        assert made.instance.dispatcher.sessions.get("n1") is None


@aio.bounded(60)
async def test_deleting_a_node_takes_its_certificate_away(tmp_path: Path) -> None:
    """In the same commit."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        async with session(made, own):
            node = lambda: made.instance.cache.snapshot().get(objects_pb2.Node, "n1")  # noqa: E731
            await aio.until(lambda: node() is not None, what="the node is stored", timeout_s=10)
        down = lambda: (found := node()) is not None and found.status.state == objects_pb2.NODE_STATE_DOWN  # noqa: E731
        await aio.until(down, what="the node is down", timeout_s=20)
        async with made.control(made.admin) as admin:
            await admin.Delete(pb.DeleteRequest(reference=pb.ObjectReference(kind="node", name="n1-name")))
        assert "node:n1" not in made.standing.registry.members
        async with made.dispatcher(own) as stub:
            assert "was removed" in (await refusal(stub.ResolveImage(wire.ResolveImageRequest(reference="x"))))[0]


@aio.bounded(60)
async def test_nobody_speaks_for_another_node(tmp_path: Path) -> None:
    """A node's certificate is its own: it registers as nobody else."""
    async with trusted.cluster(tmp_path) as made:
        own, _ = await made.join("n1"), await made.join("n2")
        async with made.dispatcher(own) as stub:
            call = stub.Session()  # type: ignore[call-arg]
            await call.write(register(own, "n2"))
            _, said = await _end_of(call)  # type: ignore[arg-type]
            assert "the certificate is of the node n1, and the agent says that it is n2" in said


@aio.bounded(60)
async def test_a_node_reads_the_images_of_its_own_tasks_alone(tmp_path: Path) -> None:
    """The name is refused before anybody looks whether there is such an image."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        async with made.dispatcher(own) as stub:
            message, _ = await refusal(stub.ResolveImage(wire.ResolveImageRequest(reference="secret:1")))
            assert message == "no task of the node n1 runs the image secret:1"
            fetching = stub.FetchBlob(wire.FetchBlobRequest(digest=f"sha256:{'0' * 64}"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await fetching.read()
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@aio.bounded(60)
async def test_each_role_does_what_is_its_own(tmp_path: Path) -> None:
    """The table is applied: a viewer reads and changes nothing, an editor changes and lets nobody in."""
    async with trusted.cluster(tmp_path) as made:
        viewer, editor = await made.person("vic", "viewer"), await made.person("eve", "editor")
        apply = pb.ApplyRequest(objects=[objects_pb2.Object(service=api_world.service())])
        async with made.control(viewer) as stub:
            await stub.List(pb.ListRequest(kind="service"))
            assert await refusal(stub.Apply(apply)) == ("viewer vic may not call Apply", "admin or editor may")
        async with made.control(editor) as stub, made.trust(editor) as trust:
            await stub.Apply(apply)
            events = (await stub.List(pb.ListRequest(kind="event"))).objects
            assert [one.event.status.actor for one in events if one.event.status.reason == "Created"] == ["eve"]
            message, hint = await refusal(trust.CreateToken(trust_pb2.CreateTokenRequest(role="node")))
            assert (message, hint) == ("editor eve may not call CreateToken", "admin may")
        lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
        told = [(one["who"], one["call"], one["objects"], "refused" in one) for one in lines if one["who"] != "root"]
        assert told == [
            ("vic", "Apply", ["service web"], True),
            ("eve", "Apply", ["service web"], False),
            ("eve", "CreateToken", [], True),
        ]


@aio.bounded(60)
async def test_a_person_who_is_bound_to_a_namespace_stays_in_it(tmp_path: Path) -> None:
    """Also when the stream of what they watch was begun."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.person("ann", "editor", "shop")
        inside, outside = api_world.service(), api_world.service()
        inside.meta.namespace = "shop"
        async with made.control(own) as stub:
            await stub.Apply(pb.ApplyRequest(objects=[objects_pb2.Object(service=inside)]))
            message, hint = await refusal(stub.Apply(pb.ApplyRequest(objects=[objects_pb2.Object(service=outside)])))
            assert message == "editor ann may not call Apply in namespace default"
            assert "namespace shop only" in hint
            exec_call = stub.Exec()  # type: ignore[call-arg]
            await exec_call.write(pb.ExecRequest(start=pb.ExecStart(namespace="bank", target="x", command=["id"])))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await exec_call.read()
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


# Tokens, and what can go wrong with a join ----------------------------------------------------------------------------


async def not_joined(made: trusted.Cluster, name: str, token: str = "", **more: object) -> joining.NotJoined:
    with pytest.raises(joining.NotJoined) as refused:
        await made.join(name, token, **more)  # type: ignore[arg-type]
    assert not (made.folder / name / IDENTITY).exists(), "nothing half done"
    return refused.value


@aio.bounded(60)
async def test_a_join_that_cannot_be_says_why_and_a_second_try_works(tmp_path: Path) -> None:
    """Another cluster's token, a damaged one, an expired one, a wrong clock, a name that is taken."""
    async with trusted.cluster(tmp_path) as made:
        other = trusted.found(tmp_path / "other")
        assert "not of the cluster at" in (await not_joined(made, "n1", other["node_token"])).message
        assert "damaged" in (await not_joined(made, "n1", made.tokens["node_token"][:-1])).message
        assert "1 h 0 min ahead" in (await not_joined(made, "n1", clock=lambda: made.now_ms() + 3_600_000)).message
        async with made.trust(made.admin) as admin:
            short = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", lifetime=1))
            once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        await aio.until(lambda: made.now_ms() > short.record.expires_at, what="the token expires", timeout_s=5)
        expired = await not_joined(made, "n1", short.token)
        assert expired.message == f"the token {short.record.id} has expired"
        assert "orchctl cluster token create --role node" in expired.hint
        await made.join("n1", once.token)
        assert "is used up" in (await not_joined(made, "n2", once.token)).message
        await made.join("n2")
        again = await _as_another_machine(made, "n1")
        assert "a node n1 already, with another key" in again.message


async def _as_another_machine(made: trusted.Cluster, name: str) -> joining.NotJoined:
    """Somebody with a good token who takes another's id."""
    wish = joining.Wish(name=name, node_name="thief")
    with pytest.raises(joining.NotJoined) as refused:
        await asyncio.to_thread(joining.join, made.door, made.tokens["node_token"], wish, Folder(made.folder / "thief"))
    return refused.value


@aio.bounded(60)
async def test_a_join_whose_answer_was_lost_is_the_same_join_the_next_time(tmp_path: Path) -> None:
    """The key was kept: the one use of the token is not used up twice."""
    async with trusted.cluster(tmp_path) as made:
        async with made.trust(made.admin) as admin:
            once = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))
        own = await made.join("n1", once.token)
        folder = Folder(tmp_path / "n1")
        folder.write(PENDING, own.key)
        folder.identity.unlink()  # as if the answer had not come
        again = await made.join("n1", once.token)
        assert again.facts.key_digest == own.facts.key_digest
        async with session(made, again):
            assert made.instance.dispatcher.sessions.get("n1") is not None


@aio.bounded(60)
async def test_a_server_that_is_not_there_or_is_no_door_is_told(tmp_path: Path) -> None:
    """And the port of the control plane is no door."""
    async with trusted.cluster(tmp_path) as made:
        door, made.door = made.door, "127.0.0.1:1"
        assert "cannot reach the door of the control plane at 127.0.0.1:1" in (await not_joined(made, "n1")).message
        made.door = made.address
        assert "does not answer as one" in (await not_joined(made, "n1")).message
        made.door = door
        await made.join("n1")


@aio.bounded(60)
async def test_a_token_is_shown_once_and_worthless_once_revoked(tmp_path: Path) -> None:
    """A rotation makes one and revokes the other in the same moment."""
    async with trusted.cluster(tmp_path) as made, made.trust(made.admin) as admin:
        first = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node"))
        second = await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", replaces=first.record.id))
        listed = (await admin.ListTokens(trust_pb2.ListTokensRequest())).tokens
        assert first.record.id not in {one.id for one in listed}
        assert all(not one.digest for one in listed)
        assert second.token.split(".")[-1] not in str(listed)
        assert "revoked, or never made here" in (await not_joined(made, "n1", first.token)).message
        await made.join("n1", second.token)


@aio.bounded(60)
async def test_the_door_bears_what_is_thrown_at_it(tmp_path: Path) -> None:
    """Noise, silence and a flood: it answers the next one that means it, and refuses the flood in words."""
    async with trusted.cluster(tmp_path) as made:
        host, port = made.door.split(":")
        context = joining._believing_anybody()
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff", b"\0\0\0\2\xff\xff"):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(noise)
            await writer.drain()
            writer.close()
            assert await reader.read() == b""
        await made.join("n1")
        results = await asyncio.gather(*(asyncio.to_thread(_knock, made.door) for _ in range(100)))
        assert 20 <= results.count("") < 100
        assert set(results) == {"", "too many are joining at once"}
        while await asyncio.to_thread(_knock, made.door):  # within the test's bound
            continue


def _knock(door: str) -> str:
    """What the door refuses to tell its roots with; empty when it tells them."""
    try:
        joining._ask(door, joining._believing_anybody(), trust_pb2.DoorRequest(roots=trust_pb2.RootsRequest()))
    except joining.NotJoined as refused:
        return refused.message
    return ""


# TLS ------------------------------------------------------------------------------------------------------------------


async def _handshake(address: str, *options: str) -> tuple[int, str]:
    command = ["openssl", "s_client", "-connect", address, "-alpn", "h2", *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


@aio.bounded(60)
async def test_nothing_older_than_tls_1_3_is_spoken(tmp_path: Path) -> None:
    """Openssl is the judge, at the control plane's port and at the door."""
    async with trusted.cluster(tmp_path) as made:
        for address in (made.address, made.door):
            older, _ = await _handshake(address, "-tls1_2")
            newer, said = await _handshake(address, "-tls1_3", "-CAfile", str(tmp_path / "cp" / "roots.pem"))
            assert older != 0
            assert "Verify return code: 0 (ok)" in said
            assert newer in {0, 1}, "without a certificate the control plane hangs up afterwards"


@aio.bounded(60)
async def test_who_shows_no_certificate_or_another_cluster_s_gets_no_answer(tmp_path: Path) -> None:
    """It ends in the handshake: no handler is reached."""
    async with trusted.cluster(tmp_path) as made:
        trusted.found(tmp_path / "other")
        stranger = Folder(tmp_path / "other" / "admin").load()
        mixed = Material(key=stranger.key, chain=stranger.chain, roots=made.admin.roots, facts=stranger.facts)
        nobody = grpc.ssl_channel_credentials(made.admin.roots)
        options = (("grpc.ssl_target_name_override", "controlplane.orch"),)
        for channel in (
            grpc.aio.insecure_channel(made.address),
            grpc.aio.secure_channel(made.address, nobody, options=options),
        ):
            async with channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await channel.unary_unary("/orch.v1.Control/Version")(b"", timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        async with made.control(mixed) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Version(pb.VersionRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@aio.bounded(60)
async def test_a_node_that_stands_up_as_a_control_plane_is_not_believed(tmp_path: Path) -> None:
    """Its certificate is for those who dial, and has not the name that is asked for."""
    async with trusted.cluster(tmp_path) as made:
        node = await made.join("n1")
        impostor = grpc.aio.server()
        configured = grpc.ssl_server_credentials([(node.key, node.chain)])
        port = impostor.add_secure_port("127.0.0.1:0", configured)
        await impostor.start()
        try:
            made.address = f"127.0.0.1:{port}"
            async with made.control(made.admin) as stub:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Version(pb.VersionRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            await impostor.stop(0)


@aio.bounded(60)
async def test_members_and_tokens_are_in_no_list_of_objects(tmp_path: Path) -> None:
    """Nor can anybody ask for them by a kind's name."""
    async with trusted.cluster(tmp_path) as made, made.control(made.admin) as stub:
        for kind in ("trust", "member", "token"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.List(pb.ListRequest(kind=kind))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

"""Who is let in, who may do what, and who is put out: over real TLS, with a real door."""

import asyncio
import contextlib
import json
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.core.trust import rules
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc, objects_pb2, trust_pb2
from tests.support import aio, api_world, trusted
from trust.core.identity import Role
from trust.folder import IDENTITY, PENDING, Material

NO_BLOB = f"sha256:{'0' * 64}"
REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


async def refusal(call: "asyncio.Future[object] | grpc.aio.UnaryUnaryCall[object, object]") -> tuple[str, str]:
    """What a call is refused with: message and hint."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]  # the stubs call it a call
    code, said = api_world.refusal(refused.value)
    assert code in REFUSED
    return said.message, said.hint


def local() -> objects_pb2.Service:
    """A service of an image that only nodes have."""
    made = api_world.service()
    made.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
    return made


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
        async with trusted.session(made, own):
            assert made.instance.dispatcher.sessions.get("n1") is not None
        assert took_s < 5, "the bound is for a busy machine; the figure stands in docs/trust.md"


@aio.bounded(60)
async def test_a_removed_node_loses_its_session_at_once_and_does_not_come_back(tmp_path: Path) -> None:
    """Within a second, with the reason; its certificate is valid for weeks to come, and worth nothing."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        async with trusted.session(made, own) as call, made.trust(made.admin) as admin:
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
        async with trusted.session(made, own):
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
            await call.write(trusted.register(own, "n2"))
            _, said = await _end_of(call)  # type: ignore[arg-type]
            assert "the certificate is of the node n1, and the agent says that it is n2" in said


@aio.bounded(60)
async def test_a_node_reads_the_images_of_its_own_tasks_alone(tmp_path: Path) -> None:
    """The name is refused before anybody looks whether there is such an image."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        async with made.dispatcher(own) as stub, made.blobs(own) as blobs:
            message, _ = await refusal(stub.ResolveImage(wire.ResolveImageRequest(reference="secret:1")))
            assert message == "no task of the node n1 runs the image secret:1"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _blob(blobs, NO_BLOB)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            message, _ = await refusal(stub.FindBlob(wire.FindBlobRequest(digest=NO_BLOB, node_id="n1")))
            assert message == f"no task of the node n1 runs an image with the blob {NO_BLOB}"
            message, _ = await refusal(stub.FindBlob(wire.FindBlobRequest(digest=NO_BLOB, node_id="n2")))
            assert message == "the certificate is of the node n1, and 'n2' asks"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.MayFetch(wire.MayFetchRequest(digest=NO_BLOB))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@aio.bounded(60)
async def test_a_node_gets_what_its_tasks_run_blob_by_blob(tmp_path: Path) -> None:
    """The image of the task that it was given, with every layer; another node gets nothing of it."""
    async with trusted.cluster(tmp_path) as made:
        own, other = await made.join("n1"), await made.join("n2")
        digest = await _imported(made, "web:1")
        async with trusted.session(made, own), made.dispatcher(own) as stub, made.blobs(own) as blobs:
            await _runs_on(made, "n1", "web:1")
            assert (await stub.ResolveImage(wire.ResolveImageRequest(reference="web:1"))).digest == digest
            manifest = json.loads(await _blob(blobs, digest))
            parts = [manifest["config"], *manifest["layers"]]
            for part in parts:
                assert len(await _blob(blobs, part["digest"])) == part["size"]
                asked = wire.FindBlobRequest(digest=part["digest"], node_id="n1")
                assert (await stub.FindBlob(asked)).here
                # What another node asks before it gives something of it.
                for node, refused in (("n1", False), ("n2", True), ("n3", True)):
                    said = await stub.MayFetch(wire.MayFetchRequest(node_id=node, digest=part["digest"]))
                    assert bool(said.refusal) == refused, said
                    assert said.refusal.startswith(f"no task of the node {node} runs") == refused
        await _gets_nothing(made, other, [digest, *(part["digest"] for part in parts)])


async def _gets_nothing(made: trusted.Cluster, own: Material, digests: list[str]) -> None:
    """A node whose tasks do not run the image."""
    async with made.dispatcher(own) as stub, made.blobs(own) as blobs:
        named = wire.ResolveImageRequest(reference="web:1")
        assert "no task of the node n2" in (await refusal(stub.ResolveImage(named)))[0]
        for digest in digests:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _blob(blobs, digest)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            finding = stub.FindBlob(wire.FindBlobRequest(digest=digest, node_id="n2"))
            assert "no task of the node n2" in (await refusal(finding))[0]


@aio.bounded(60)
async def test_another_instance_gets_every_image_and_people_none(tmp_path: Path) -> None:
    """Instances keep all of them; who carries an image away as a person pulls it from a registry."""
    async with trusted.cluster(tmp_path) as made:
        other = await made.join("cp2", made.tokens["controlplane_token"])
        digest = await _imported(made, "web:1")
        async with made.blobs(other) as stub:
            assert json.loads(await _blob(stub, digest))["layers"]
        async with made.blobs(made.admin) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _blob(stub, digest)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "admin root may not call Fetch" in (refused.value.details() or "")


async def _imported(made: trusted.Cluster, name: str) -> str:
    """An image of one file, brought by the admin; its digest."""
    async with made.control(made.admin) as stub:
        imported = await stub.ImportImage(iter(trusted.archive_of_one_file(name)))
    return str(imported.images[0].status.digest)


async def _runs_on(made: trusted.Cluster, node: str, image: str) -> None:
    """A service of one task, which the scheduler gives to the only node there is."""
    async with made.control(made.admin) as stub:
        service = objects_pb2.Object(service=api_world.service(image=image, replicas=1))
        await stub.Apply(pb.ApplyRequest(objects=[service]))
    given = lambda: bool(made.instance.cache.snapshot().tasks_on(node))  # noqa: E731
    await aio.until(given, what="the task is on the node", timeout_s=20)


async def _blob(stub: "dispatcher_pb2_grpc.BlobsAsyncStub", digest: str) -> bytes:
    return b"".join([part.chunk async for part in stub.Fetch(wire.FetchBlobRequest(digest=digest))])


@aio.bounded(60)
async def test_each_role_does_what_is_its_own(tmp_path: Path) -> None:
    """The table is applied: a viewer reads and changes nothing, an editor changes and lets nobody in."""
    async with trusted.cluster(tmp_path) as made:
        viewer, editor = await made.person("vic", "viewer"), await made.person("eve", "editor")
        apply = pb.ApplyRequest(objects=[objects_pb2.Object(service=local())])
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
        assert [one for one in told if one[1] != "Join"] == [
            ("vic", "Apply", ["service web"], True),
            ("eve", "Apply", ["service default/web"], False),
            ("eve", "CreateToken", ["role node"], True),
        ]


@aio.bounded(60)
async def test_the_server_refuses_each_role_every_call_that_is_not_its_own(tmp_path: Path) -> None:
    """Whatever its service: none stands beside the gate. That the table says the right roles, `test_rules` shows."""
    async with trusted.cluster(tmp_path) as made:
        members = {
            Role.VIEWER: await made.person("vic", "viewer"),
            Role.EDITOR: await made.person("eve", "editor"),
            Role.ADMIN: made.admin,
            Role.NODE: await made.join("n1"),
        }
        refused = 0
        for role, own in members.items():
            async with made.channel(own) as channel:
                for path in (path for path, rule in rules.RULES.items() if role not in rule.roles):
                    if path == rules.METRICS:  # a page, and no call
                        continue
                    with pytest.raises(grpc.aio.AioRpcError) as ended:
                        await channel.stream_stream(path)([b""], timeout=10).read()
                    said = ended.value
                    assert said.code() is grpc.StatusCode.PERMISSION_DENIED, (role, path, said.details())
                    assert f"{role} " in (said.details() or "")
                    refused += 1
        assert refused > 50


@aio.bounded(60)
async def test_a_person_who_is_bound_to_a_namespace_stays_in_it(tmp_path: Path) -> None:
    """Also when the stream of what they watch was begun."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.person("ann", "editor", "shop")
        inside, outside = local(), local()
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

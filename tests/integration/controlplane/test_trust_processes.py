"""The whole way with real processes: a cluster is founded, etcd speaks TLS alone, and another instance joins."""

import asyncio
import dataclasses
import random
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from agent import renewal
from agent.adapters.layout import Layout
from agent.rpc import Server
from controlplane.trust import founding
from protos.orch.v1 import control_pb2, control_pb2_grpc, trust_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, etcd, trusted, waiting
from tests.support.trusted_process import Process, instance, leader
from trust import credentials
from trust.core import lifetime
from trust.core.identity import Role
from trust.folder import Folder, Material

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[etcd.EtcdProcess], dict[str, str]]]:
    """A cluster that was founded, and three members of etcd with its certificates."""
    folder = tmp_path_factory.mktemp("founded")
    tokens = trusted.found(folder)
    (folder / "cp").rename(folder / "cp1")
    with etcd.cluster(3, folder / "cp1") as running:
        yield folder, running, tokens


Founded = tuple[Path, list[etcd.EtcdProcess], dict[str, str]]


def test_a_second_instance_joins_by_the_first_one_s_door_and_takes_over(members: Founded) -> None:
    """It gets the images that the first one has. It can let others in then, and issue: it has the sealing key. The
    first one's end is not the cluster's.
    """
    folder, running, tokens = members
    admin = Folder(folder / "admin").load(Role.ADMIN)
    with instance(folder, "cp1", running) as first:
        assert leader(first, admin) == "cp1"
        waiting.until(lambda: not (folder / "cp1" / "founding.bin").exists(), what="it is founded")
        (folder / "token").write_text(tokens["controlplane_token"])
        joined = subprocess.run(
            [
                *(sys.executable, "-m", "controlplane.trust.join", f"--token=@{folder / 'token'}"),
                *(f"--door={first.door}", f"--trust={folder / 'cp2'}", "--name=cp2", "--host=127.0.0.1"),
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert joined.returncode == 0, joined.stderr
        with instance(folder, "cp2", running) as second:
            assert leader(second, admin) == "cp1"
            blob = folder / "cp2-state" / "images" / "blobs" / "sha256" / _imported(first, admin)
            waiting.until(blob.exists, what="the second instance has the image", timeout_s=20)
            first.stop()
            deadline = time.monotonic() + 20
            while leader(second, admin) != "cp2":
                assert time.monotonic() < deadline
            node = subprocess.run(
                [
                    *(sys.executable, "-m", "agent.join", f"--token={tokens['node_token']}"),
                    *(f"--door={second.door}", f"--state={folder / 'n1'}", "--name=n1"),
                ],
                cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert node.returncode == 0, node.stderr
            own = Folder(folder / "n1" / "trust").load(Role.NODE)
            assert own.identity.name == Layout(folder / "n1", None).node.read_text().strip()


def _imported(at: Process, own: Material) -> str:
    """Its digest, as figures."""
    with grpc.secure_channel(at.address, credentials.channel(own), options=credentials.CHANNEL_OPTIONS) as channel:
        stub = control_pb2_grpc.ControlStub(channel)
        imported = stub.ImportImage(iter(trusted.archive_of_one_file("web:1")), timeout=20)
    return imported.images[0].status.digest.removeprefix("sha256:")


def test_etcd_talks_to_instances_alone_and_over_tls_1_3_alone(members: Founded) -> None:
    """Clients and peers: not without a certificate, not with an admin's of the cluster, not in the clear."""
    folder, running, _ = members
    url = f"https://{running[0].endpoint}/health"
    roots = folder / "cp1" / "etcd" / "roots.pem"
    own, admin = folder / "cp1" / "store.pem", folder / "admin" / "identity.pem"
    assert _health(url, roots, own) == 200
    assert isinstance(_health(url, roots, None), OSError)
    assert isinstance(_health(url, roots, admin), OSError)
    assert "ALERT_HANDSHAKE_FAILURE" in str(_health(url, roots, own, newest=ssl.TLSVersion.TLSv1_2))
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(url.replace("https", "http"), timeout=5).close()
    peer = running[0].peer_url
    assert isinstance(_health(f"{peer}/version", roots, admin), OSError)
    assert _health(f"{peer}/version", roots, own) == 200
    assert isinstance(_health(f"{peer}/version", roots, None), OSError)
    assert "ALERT_HANDSHAKE_FAILURE" in str(_health(f"{peer}/version", roots, own, newest=ssl.TLSVersion.TLSv1_2))
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"{peer}/version".replace("https", "http"), timeout=5).close()


def _health(url: str, roots: Path, own: Path | None, *, newest: ssl.TLSVersion | None = None) -> object:
    """The HTTP status, or why there is none."""
    context = ssl.create_default_context(cafile=roots)
    if own is not None:
        context.load_cert_chain(own)
    if newest is not None:
        context.maximum_version = newest
    try:
        with urllib.request.urlopen(url, timeout=5, context=context) as answer:
            return answer.status
    except (urllib.error.URLError, OSError) as error:
        return error


def test_an_instance_with_another_cluster_s_folder_ends_with_the_reason(members: Founded, tmp_path: Path) -> None:
    """And leaves the store as it was."""
    folder, running, _ = members
    trusted.found(tmp_path, instance="cp9")
    with instance(folder, "cp1", running) as first:
        leader(first, Folder(folder / "admin").load(Role.ADMIN))
    (tmp_path / "cp").rename(tmp_path / "cp9")
    for name in ("store.pem", "store-roots.pem"):  # else the store does not let it in at all
        (tmp_path / "cp9" / name).write_bytes((folder / "cp1" / name).read_bytes())
    with instance(tmp_path, "cp9", running) as stranger:
        assert stranger.wait() == 1
        assert "and the store holds" in stranger.log()


@pytest.mark.parametrize("role", ["node", "admin"])
def test_a_folder_of_another_role_is_no_instance_s(role: str, members: Founded, tmp_path: Path) -> None:
    """It is told as what it is, before the store is asked for anything."""
    folder, running, _ = members
    founded = founding.Node(id="n1", name="web", folder=Folder(tmp_path / "node"))
    plan = founding.Plan(instances=[], admin="root", admins=Folder(tmp_path / "admin"), nodes=[founded])
    founding.found(plan, time.time_ns() // 1_000_000)
    (tmp_path / "cp1").mkdir(mode=0o700)
    for name in ("identity.pem", "roots.pem"):
        (tmp_path / "cp1" / name).write_bytes((tmp_path / role / name).read_bytes())
        (tmp_path / "cp1" / name).chmod(0o600)
    for name in ("store.pem", "store-roots.pem"):
        (tmp_path / "cp1" / name).write_bytes((folder / "cp1" / name).read_bytes())
        (tmp_path / "cp1" / name).chmod(0o600)
    with instance(tmp_path, "cp1", running) as process:
        assert process.wait() == 1
        whose = {"node": "node n1", "admin": "admin root"}[role]
        assert f"is the certificate of {whose}, and one of role controlplane is needed" in process.log()


@aio.bounded(90)
async def test_a_renewal_leaves_what_is_open_and_serves_what_comes(tmp_path: Path) -> None:
    """The session goes on with the old certificate; the next connection shows the new one, and the old one's is good
    until the next renewal.
    """
    async with trusted.cluster(tmp_path) as made:
        first = await made.join("n1")
        server = Server("n1", first)
        link = await server.connect(made.address)
        try:
            await link.send(wire.AgentMessage(register=wire.Register(node_id="n1", node_name="n1-name")))
            assert (await link.receive()).WhichOneof("message") == "registered"
            await renewal.renew(server, Folder(tmp_path / "n1"))
            renewed = Folder(tmp_path / "n1").load(Role.NODE)
            assert renewed.facts.key_digest != first.facts.key_digest
            assert renewed.identity == first.identity
            keys = [key.digest for key in made.standing.registry.members["node:n1"].keys]
            assert keys == [renewed.facts.key_digest, first.facts.key_digest]
            assert made.instance.dispatcher.sessions.get("n1") is not None
            await link.close()
            again = await server.connect(made.address)
            await again.send(wire.AgentMessage(register=wire.Register(node_id="n1", node_name="n1-name")))
            assert (await again.receive()).WhichOneof("message") == "registered"
            await again.close()
        finally:
            await server.close()


@aio.bounded(90)
async def test_a_node_renews_by_itself_when_the_moment_in_its_certificate_s_life_has_come(tmp_path: Path) -> None:
    """Not before half of it; the session is not touched."""
    async with trusted.cluster(tmp_path) as made:
        own, now_ms = await made.join("n1"), made.now_ms()
        facts = dataclasses.replace(own.facts, not_before_ms=now_ms, not_after_ms=now_ms + 4_000)
        aged = dataclasses.replace(own, facts=facts)  # its agent takes it for one of four seconds
        server = Server("n1", aged)
        link = await server.connect(made.address)
        try:
            await link.send(wire.AgentMessage(register=wire.Register(node_id="n1", node_name="n1-name")))
            assert (await link.receive()).WhichOneof("message") == "registered"
            async with asyncio.TaskGroup() as group:
                kept = renewal.Renewal(server, Folder(tmp_path / "n1"), made.now_ms, random.Random(1))
                running = group.create_task(kept.run())
                await aio.until(lambda: server.own is not aged, what="the agent renews", timeout_s=30)
                running.cancel()
            assert made.now_ms() - now_ms >= 2_000
            assert server.own == Folder(tmp_path / "n1").load(Role.NODE)
            assert made.instance.dispatcher.sessions.get("n1") is not None
        finally:
            await link.close()
            await server.close()


@aio.bounded(90)
async def test_an_instance_renews_its_own_certificate_while_it_serves(tmp_path: Path) -> None:
    """The next handshake shows the new one, at its port and at the door; a call that is open goes on."""
    async with trusted.cluster(tmp_path) as made:
        before = made.standing.own
        async with made.control(made.admin) as stub:
            watching = stub.Watch(control_pb2.WatchRequest(selections=[control_pb2.ListRequest(kind="node")]))
            assert (await watching.read()).synced  # type: ignore[union-attr]
            await made.standing.renew()
            assert made.standing.own.facts.serial != before.facts.serial
            for address in (made.address, made.door):
                pem = await asyncio.to_thread(_shown, address)
                assert pem.strip().encode() == made.standing.own.chain.strip()
            assert not watching.done()
            watching.cancel()


@aio.bounded(90)
async def test_an_instance_renews_by_itself_between_half_and_four_fifths_and_ends_no_session(tmp_path: Path) -> None:
    """At 49.9 % of its certificate's life nothing happens, at 80.1 % it is renewed, whatever moment was drawn. What is
    open goes on, and who comes next is shown the new one.
    """
    day_ms, whole_ms = lifetime.DAY_MS, lifetime.LEAF_MS + lifetime.BACKDATED_MS
    real_ms = time.time_ns() // 1_000_000
    founded_ms = real_ms + lifetime.BACKDATED_MS - int(whole_ms * 0.801)
    async with trusted.cluster(tmp_path, founded_ms=founded_ms, ahead_ms=founded_ms + day_ms - real_ms) as made:
        before = made.standing.own
        async with made.trust(made.admin) as admin:
            token = (await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node"))).token
        own = await made.join("n1", token, clock=made.now_ms)
        async with trusted.session(made, own) as session, made.control(made.admin) as stub:
            watching = stub.Watch(control_pb2.WatchRequest(selections=[control_pb2.ListRequest(kind="node")]))
            assert (await watching.read()).synced or (await watching.read()).synced  # type: ignore[union-attr]
            made.ahead_ms = -int(whole_ms * (0.801 - 0.499))
            await _looked(made, "10.0.0.1:1")
            assert made.standing.own is before
            made.ahead_ms = 0
            await _looked(made, "10.0.0.1:2")
            assert made.standing.own.facts.serial != before.facts.serial
            assert (await asyncio.to_thread(_shown, made.address)).strip().encode() == made.standing.own.chain.strip()
            assert not watching.done()
            assert not session.done()
            assert made.instance.dispatcher.sessions.get("n1") is not None
            watching.cancel()
        await made.join("n2", token)


async def _looked(made: trusted.Cluster, address: str) -> None:
    """The instance's keeper has been woken and gone through all of its work: it begins with publishing an address."""
    mine = made.standing
    for last in (f"{address}0", address):  # once the second is there, the work that began with the first has ended
        mine.address = last
        await mine.membership.create_token(trust_pb2.CreateTokenRequest(role="node"), "test")  # news, which wake it
        await aio.until(lambda: last in mine.registry.instances, what="the keeper looks", timeout_s=20)  # noqa: B023


def _shown(address: str) -> str:
    """The certificate that a server shows."""
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10)

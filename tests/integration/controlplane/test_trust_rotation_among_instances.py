"""The exchange of the cluster's root by three instances as processes: whoever leads may be lost in its middle."""

import asyncio
import contextlib
import functools
import random
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from agent.renewal import Renewal
from agent.rpc import Server
from controlplane import main
from controlplane.core.trust import etcd_flags
from controlplane.trust import founding
from protos.link import Link, LinkLost
from protos.orch.v1 import control_pb2, control_pb2_grpc, trust_pb2_grpc
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import trust_pb2 as pb
from tests.support import aio, etcd, trusted, waiting
from tests.support.trusted_process import Process, leader
from trust import credentials, errands, joining
from trust.core import certificate
from trust.core.identity import Role
from trust.folder import Folder, Material, material

pytestmark = pytest.mark.etcd

NAMES = ("cp1", "cp2", "cp3")
A_WHILE_S = 60
CALL_S = 20
LOOK_AGAIN_S = 0.2


class Trio:
    """Three instances over one etcd, and their admin."""

    def __init__(self, folder: Path, members: list[etcd.EtcdProcess], token: str) -> None:
        self.folder, self.token = folder, token
        self.admin = Folder(folder / "admin").load(Role.ADMIN)
        self._members = members
        self.processes = {name: Process(folder, name, members) for name in NAMES}

    def leader(self) -> str:
        """Who leads, by whoever runs; waits until all of those agree."""
        said = {leader(each, self.admin) for each in self.running()}
        return said.pop() if len(said) == 1 else ""

    def running(self) -> list[Process]:
        return [each for each in self.processes.values() if each.ended() is None]

    def start(self, name: str) -> None:
        """Again, at other ports."""
        self.processes[name] = Process(self.folder, name, self._members)

    def stop(self) -> None:
        for each in self.processes.values():
            each.stop()

    def rotate(self, at: str, **fields: object) -> pb.RotateRootResponse:
        with self._channel(at, self.admin) as channel:
            request = pb.RotateRootRequest(**fields)  # type: ignore[arg-type]  # its fields
            return trust_pb2_grpc.TrustStub(channel).RotateRoot(request, timeout=CALL_S)

    def renew_admin(self, at: str) -> None:
        """As `orchctl login --renew`."""
        key, asked = errands.request()
        with self._channel(at, self.admin) as channel:
            answer = trust_pb2_grpc.TrustStub(channel).Renew(pb.RenewRequest(certificate_request=asked), timeout=CALL_S)
        self.admin = material(key.encode(), answer.certificate.encode(), answer.roots.encode())
        with self._channel(at, self.admin) as channel:
            trust_pb2_grpc.TrustStub(channel).Confirm(pb.ConfirmRequest(), timeout=CALL_S)

    def new_token(self, at: str) -> str:
        with self._channel(at, self.admin) as channel:
            made = trust_pb2_grpc.TrustStub(channel).CreateToken(pb.CreateTokenRequest(role="node"), timeout=CALL_S)
        return made.token

    def join(self, at: str, name: str, token: str) -> Material:
        wish = joining.Wish(name=name, node_name=name)
        return joining.join(self.processes[at].door, token, wish, Folder(self.folder / name)).own

    def believes(self, at: str, own: Material) -> bool:
        """Whether an instance answers whoever shows this."""
        with self._channel(at, own) as channel, contextlib.suppress(grpc.RpcError):
            control_pb2_grpc.ControlStub(channel).Version(control_pb2.VersionRequest(), timeout=CALL_S)
            return True
        return False

    @contextlib.contextmanager
    def _channel(self, at: str, own: Material) -> Iterator[grpc.Channel]:
        options = (("grpc.use_local_subchannel_pool", 1), *credentials.CHANNEL_OPTIONS)
        with grpc.secure_channel(self.processes[at].address, credentials.channel(own), options=options) as channel:
            yield channel

    def _ended(self, name: str) -> bool:
        return not self.rotate(name).rotating

    def terms(self) -> int:
        """How often an instance has begun to lead."""
        logs = (self.folder / f"{name}.log" for name in NAMES)
        return sum(log.read_text(errors="replace").count('"this instance leads"') for log in logs)

    async def until_done(self) -> None:
        """No instance knows of an exchange, and each shows a certificate of the root that is left, at both ports."""
        in_thread = asyncio.to_thread
        for name, each in self.processes.items():
            ended = functools.partial(self._ended, name)
            await in_thread(waiting.until, ended, what=f"{name} knows of the end", timeout_s=A_WHILE_S)
            for address in (each.address, each.door):
                assert await in_thread(issuer_at, address) == self.admin.facts.issuer
            assert roots(Folder(self.folder / name).load()) == roots(self.admin)[:1]


def issuer_at(address: str) -> tuple[tuple[str, str], ...]:
    """The root that has issued what is shown there; each has a name of its own."""
    host, port = address.split(":")
    return certificate.read(ssl.get_server_certificate((host, int(port)), timeout=CALL_S).encode()).issuer


def roots(own: Material) -> list[str]:
    return [certificate.of_der(each).key_digest for each in certificate.split(own.roots)]


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    """Founded with three instances, all of which run, and one leads."""
    own = [
        founding.Instance(
            name=name, folder=Folder(tmp_path / name), member=etcd_flags.at_host(name, etcd_flags.LOOPBACK)
        )
        for name in NAMES
    ]
    tokens = founding.found(
        founding.Plan(instances=own, admin="root", admins=Folder(tmp_path / "admin")), main.now_ms()
    )
    with etcd.cluster(1, tmp_path / "cp1") as members:
        made = Trio(tmp_path, members, tokens["node_token"])
        try:
            yield made
        finally:
            made.stop()


class Node:
    """A node whose agent is at work: it has a session with whoever leads, and renews when it is told of other roots."""

    def __init__(self, trio: Trio, own: Material) -> None:
        self.server = Server(own.identity.name, own)
        self._trio = trio
        self._renewal = Renewal(self.server, Folder(trio.folder / own.identity.name), main.now_ms, random.Random(1))
        self.sessions = 0
        self.ends: list[str] = []
        """Why each session but the one that lasts has ended."""

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """In the block. When another leads, it goes there, as agents do."""
        running = {asyncio.create_task(work()) for work in (self._follow, self._renewal.run)}
        try:
            await aio.until(lambda: bool(self.sessions), what="a session begins", timeout_s=A_WHILE_S)
            yield
        finally:
            for each in running:
                each.cancel()
            await asyncio.wait(running)
            await self.server.close()
        assert all(each.cancelled() for each in running), "both go on until they are ended"

    async def _follow(self) -> None:
        while True:
            for each in self._trio.running():
                with contextlib.suppress(LinkLost):
                    await self._visit(each.address)
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _visit(self, address: str) -> None:
        """A session that begins there is held until it ends. Raises LinkLost when nobody answers."""
        link = await aio.within(CALL_S, self.server.connect(address), what=f"{address} answers")
        try:
            await link.send(wire.AgentMessage(register=wire.Register(node_id="n1", node_name="n1")))
            if (await link.receive()).WhichOneof("message") != "registered":
                return  # another leads
            self.sessions += 1
            async with trusted.beating(link):
                await self._hold(link)
        finally:
            await link.close()

    async def _hold(self, link: Link[wire.AgentMessage, wire.LeaderMessage]) -> None:
        try:
            while True:
                message = await link.receive()
                if message.WhichOneof("message") == "trust_news":
                    self._renewal.told_roots(message.trust_news.roots_digest)
        except LinkLost as error:
            self.ends.append(str(error))

    async def believes(self, *expected: str) -> None:
        """Waits until it has a certificate of the first of these roots, and believes all of them and no other."""
        there = lambda: roots(Folder(self._trio.folder / "n1").load()) == list(expected)  # noqa: E731
        await aio.until(there, what=f"the node believes {len(expected)} roots", timeout_s=A_WHILE_S)


async def leads(trio: Trio) -> str:
    """Who leads, once those that run agree. A moment later it may be another: a busy machine lets leases lapse."""
    return await asyncio.to_thread(waiting.until, trio.leader, what="they agree who leads", timeout_s=A_WHILE_S)


@aio.bounded(280)
async def test_three_instances_exchange_the_root_and_no_session_ends(trio: Trio) -> None:
    """Begun at one, gone on with at the others; afterwards nothing of the old root is worth anything at any of them,
    and a token of the one opens the door of the other. A session ends when another leads, and for nothing else.
    """
    in_thread = asyncio.to_thread
    first, old = await leads(trio), trio.admin
    second, third = (name for name in NAMES if name != first)
    own = await in_thread(trio.join, third, "n1", trio.token)
    node = Node(trio, own)
    async with node.at_work():
        begun = await in_thread(lambda: trio.rotate(second, begin=True))
        assert {"node:n1", "person:root"} <= set(begun.waiting_for)
        await in_thread(trio.renew_admin, third)
        (new, _) = roots(trio.admin)
        await node.believes(new)  # one root again
        await trio.until_done()
        assert node.sessions <= trio.terms(), node.ends
    for name in NAMES:
        for stale in (old, own):
            shown = Material(key=stale.key, chain=stale.chain, roots=trio.admin.roots, facts=stale.facts)
            assert not await in_thread(trio.believes, name, shown)
        with pytest.raises(joining.NotJoined, match="not of the cluster at"):
            await in_thread(trio.join, name, "n9", trio.token)
    await in_thread(trio.join, third, "n2", await in_thread(trio.new_token, second))


@aio.bounded(280)
async def test_an_exchange_is_ended_under_another_leader(trio: Trio) -> None:
    """The leader stands still when it begins, so that it has nothing of it, and is killed: the next leader tells the
    nodes, and the exchange waits for the one that is off. It comes back with its old certificate, and is one of them.
    """
    in_thread = asyncio.to_thread
    first = await leads(trio)
    second, third = (name for name in NAMES if name != first)
    node = Node(trio, await in_thread(trio.join, first, "n1", trio.token))
    async with node.at_work():
        trio.processes[first].signal(signal.SIGSTOP)
        await in_thread(lambda: trio.rotate(second, begin=True))
        trio.processes[first].signal(signal.SIGKILL)
        await in_thread(trio.processes[first].wait)
        await in_thread(trio.renew_admin, third)
        new, old = roots(trio.admin)
        await node.believes(new, old)
        only = lambda: trio.rotate(third).waiting_for == [f"controlplane:{first}"]  # noqa: E731
        await in_thread(waiting.until, only, what="it waits for the one that is off", timeout_s=A_WHILE_S)
        trio.start(first)
        await node.believes(new)
        await leads(trio)
        await trio.until_done()

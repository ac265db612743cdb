"""The exchange of the cluster's root, with sessions open all the while."""

import asyncio
import functools
import hashlib
import json
import random
import shutil
from pathlib import Path

import grpc
import grpc.aio
import pytest

from agent.errors import Temporary
from agent.renewal import Renewal
from agent.rpc import Server
from controlplane import main
from controlplane.core.trust import rotation
from controlplane.store import memory
from controlplane.trust.standing import standing
from protos.link import Link
from protos.orch.v1 import control_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import trust_pb2 as pb
from tests.support import aio, trusted
from trust import errands, joining
from trust.core import certificate
from trust.core.identity import Role
from trust.folder import Folder, Material, material

AgentLink = Link[wire.AgentMessage, wire.LeaderMessage]


class Losing(Server):
    """The way to a control plane, on which an answer with a certificate is lost, or the word that it has come."""

    def __init__(self, own: Material, lost: str) -> None:
        super().__init__(own.identity.name, own)
        self.lost = lost
        self.asked = 0

    async def renew(self, request: pb.RenewRequest) -> pb.RenewResponse:
        answer = await super().renew(request)
        self.asked += 1
        if self.lost == "answer":
            raise Temporary("the answer is lost", reason="NoControlPlane")
        return answer

    async def confirm(self) -> None:
        if self.lost != "word":
            await super().confirm()
        elif self.asked:
            raise Temporary("the word is lost", reason="NoControlPlane")


async def opened(server: Server, made: trusted.Cluster, name: str) -> AgentLink:
    """A session that has begun."""
    link = await server.connect(made.address)
    await link.send(wire.AgentMessage(register=wire.Register(node_id=name, node_name=f"{name}-name")))
    assert (await link.receive()).WhichOneof("message") == "registered"
    return link


async def news(link: AgentLink) -> str:
    """The digest of the roots, as the leader tells it next."""
    while True:
        message = await link.receive()
        if message.WhichOneof("message") == "trust_news":
            return message.trust_news.roots_digest


async def renewed(made: trusted.Cluster, own: Material) -> Material:
    """As `orchctl login --renew`."""
    key, asked = errands.request()
    async with made.trust(own) as stub:
        answer = await stub.Renew(pb.RenewRequest(certificate_request=asked))
    fresh = material(key.encode(), answer.certificate.encode(), answer.roots.encode())
    async with made.trust(fresh) as stub:
        await stub.Confirm(pb.ConfirmRequest())
    return fresh


async def status(made: trusted.Cluster, own: Material, **fields: object) -> pb.RotateRootResponse:
    async with made.trust(own) as stub:
        return await stub.RotateRoot(pb.RotateRootRequest(**fields))  # type: ignore[arg-type]


def roots(own: Material) -> list[str]:
    return [certificate.of_der(each).key_digest for each in certificate.split(own.roots)]


@aio.bounded(120)
async def test_the_root_is_exchanged_while_sessions_stay_open(tmp_path: Path) -> None:
    """Everybody gets a certificate of the new one and keeps their session; then the old one and its tokens are
    worth nothing.
    """
    async with trusted.cluster(tmp_path) as made:
        first, admin = await made.join("n1"), made.admin
        (old,) = roots(admin)
        server = Server("n1", first)
        renewal = Renewal(server, Folder(tmp_path / "n1"), made.now_ms, random.Random(1))
        link = await opened(server, made, "n1")
        async with trusted.beating(link):
            renewal.told_roots(await news(link))
            begun = await status(made, admin, begin=True)
            assert begun.rotating
            assert {"node:n1", "person:root"} <= set(begun.waiting_for)
            await _renewed_as_told(made, renewal, link, server)
            assert len(roots(server.own)) == 2  # type: ignore[arg-type]
            admin = await renewed(made, admin)
            await aio.until(lambda: not made.standing.registry.trust.rotation, what="the old root goes", timeout_s=30)

            await _renewed_as_told(made, renewal, link, server)
            (new,) = roots(server.own)  # type: ignore[arg-type]
            assert new != old
            assert roots(made.standing.own) == [new]
            assert made.instance.dispatcher.sessions.get("n1") is not None
            await _old_ones_are_worth_nothing(made, first)
            async with made.control(admin) as stub:
                await stub.Version(control_pb2.VersionRequest(), timeout=5)
            async with made.trust(admin) as stub:
                token = (await stub.CreateToken(pb.CreateTokenRequest(role="node"))).token
            assert roots(await made.join("n2", token)) == [new]
        await link.close()
        await server.close()


async def _renewed_as_told(made: trusted.Cluster, renewal: Renewal, link: AgentLink, server: Server) -> None:
    """The agent hears of other roots, and gets another certificate for them, by itself."""
    before = server.own
    renewal.told_roots(await news(link))

    def has_come() -> bool:
        key = made.standing.registry.members["node:n1"].keys[0]
        own = server.own
        return own is not None and own is not before and own.facts.key_digest == key.digest and not key.unconfirmed

    async with asyncio.TaskGroup() as group:
        running = group.create_task(renewal.run())
        await aio.until(has_come, what="the agent renews, and says so", timeout_s=30)
        running.cancel()


async def _old_ones_are_worth_nothing(made: trusted.Cluster, first: Material) -> None:
    """Neither the certificates of the old root nor the tokens that pin it."""
    for own in (first, made.admin):
        stale = Material(key=own.key, chain=own.chain, roots=made.standing.own.roots, facts=own.facts)
        async with made.control(stale) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Version(control_pb2.VersionRequest(), timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(joining.NotJoined, match="not of the cluster at"):
        await made.join("n9")


@pytest.mark.parametrize("lost", ["answer", "word"])
@aio.bounded(120)
async def test_an_exchange_does_not_end_while_a_node_may_not_have_its_certificate(lost: str, tmp_path: Path) -> None:
    """Everybody else has theirs, so that the exchange would end with the record of this one: the answer is lost, or the
    agent ends before it has said that it came. The next agent has what is on the disk, and need not join anew.
    """
    async with trusted.cluster(tmp_path) as made:
        server = Losing(await made.join("n1"), lost)
        link = await opened(server, made, "n1")
        renewal = Renewal(server, Folder(tmp_path / "n1"), made.now_ms, random.Random(1))
        await status(made, made.admin, begin=True)
        admin = await renewed(made, made.admin)
        await aio.until(lambda: made.standing.own.facts.issuer == admin.facts.issuer, what="the instance", timeout_s=30)
        renewal.told_roots(await _news_of_two(link, made))
        running = asyncio.create_task(renewal.run())
        await aio.until(lambda: bool(server.asked), what="a certificate is made for the node", timeout_s=30)
        record = lambda: made.standing.registry.members["node:n1"]  # noqa: E731
        assert record().keys[0].root == roots(admin)[0]
        still = await status(made, admin)
        assert (still.rotating, list(still.waiting_for)) == (True, ["node:n1"])
        running.cancel()
        await asyncio.wait({running})
        await link.close()
        await server.close()

        kept = Folder(tmp_path / "n1").load(Role.NODE)
        assert (kept.facts.issuer == admin.facts.issuer) is (lost == "word")
        await _comes_again(made, kept, admin)


@pytest.mark.parametrize("lost", ["answer", "word"])
@aio.bounded(120)
async def test_what_was_lost_is_said_again_with_the_next_session(lost: str, tmp_path: Path) -> None:
    """Not only after the minute for which an agent waits: the session that began may be with another control plane."""
    async with trusted.cluster(tmp_path) as made:
        server = Losing(await made.join("n1"), lost)
        link = await opened(server, made, "n1")
        renewal = Renewal(server, Folder(tmp_path / "n1"), made.now_ms, random.Random(1))
        await status(made, made.admin, begin=True)
        renewal.told_roots(both := await _news_of_two(link, made))
        record = lambda: made.standing.registry.members["node:n1"].keys[0]  # noqa: E731
        async with trusted.beating(link), asyncio.TaskGroup() as group:
            running = group.create_task(renewal.run())
            await aio.until(lambda: record().unconfirmed, what="a certificate is made for the node", timeout_s=30)
            await aio.until(lambda: bool(server.asked), what="it was lost", timeout_s=30)
            server.lost = ""
            renewal.told_roots(both)
            await aio.until(lambda: not record().unconfirmed, what="it is confirmed", timeout_s=30)
            running.cancel()
        assert record().digest == Folder(tmp_path / "n1").load(Role.NODE).facts.key_digest
        await link.close()
        await server.close()


async def _news_of_two(link: AgentLink, made: trusted.Cluster) -> str:
    """The digest of both roots: what the session begins with may be that of the first."""
    both = hashlib.sha256(rotation.bundle(made.standing.registry.trust).encode()).hexdigest()
    while (told := await news(link)) != both:
        continue
    return told


async def _comes_again(made: trusted.Cluster, kept: Material, admin: Material) -> None:
    """An agent with this; the exchange ends, and it is a member by the new root alone."""
    server = Server("n1", kept)
    renewal = Renewal(server, Folder(made.folder / "n1"), made.now_ms, random.Random(1))
    link = await opened(server, made, "n1")
    renewal.told_roots(await news(link))
    running = asyncio.create_task(renewal.run())
    await aio.until(lambda: not made.standing.registry.trust.rotation, what="the exchange ends", timeout_s=30)
    renewal.told_roots(await news(link))
    own = lambda: Folder(made.folder / "n1").load()  # noqa: E731
    await aio.until(lambda: roots(own()) == roots(admin)[:1], what="the node believes one root", timeout_s=30)
    assert made.instance.dispatcher.sessions.get("n1") is not None
    running.cancel()
    await asyncio.wait({running})
    await link.close()
    await (await opened(server, made, "n1")).close()
    await server.close()


@aio.bounded(120)
async def test_who_does_not_come_any_more_is_left_behind(tmp_path: Path) -> None:
    """The exchange waits for a node that is off, and tells so, until an admin says that it need not."""
    async with trusted.cluster(tmp_path) as made:
        await made.join("n1")
        await status(made, made.admin, begin=True)
        admin = await renewed(made, made.admin)
        own_done = lambda: made.standing.own.facts.issuer != made.admin.facts.issuer  # noqa: E731
        await aio.until(own_done, what="the instance has renewed", timeout_s=30)
        waiting = await status(made, admin)
        assert (waiting.rotating, list(waiting.waiting_for)) == (True, ["node:n1"])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await status(made, admin, begin=True)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        for left_behind in ([], ["node:n2"]):  # as who waits for the end asks, twice a second
            assert (await status(made, admin, left_behind=left_behind)).rotating
        done = await status(made, admin, left_behind=["node:n1"])
        assert (done.rotating, list(done.left_behind)) == (False, ["node:n1"])
        await status(made, admin, left_behind=["node:n1"])
        lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
        assert [(one["objects"], "refused" in one) for one in lines if one["call"] == "RotateRoot"] == [
            (["a new root"], False),
            (["a new root"], True),
            (["node:n1 left behind"], False),
        ]
        assert Folder(tmp_path / "n1").load(Role.NODE).identity.name == "n1"


@aio.bounded(120)
async def test_an_instance_that_has_missed_an_exchange_gets_a_certificate_of_the_new_root(tmp_path: Path) -> None:
    """It was killed between the record of its renewal and the file, or was left behind: nobody would believe what it
    has. It is a member, and has the key that the root is sealed with.
    """
    trusted.found(tmp_path)
    folder, store = Folder(tmp_path / "cp"), memory.MemoryStore()
    alone = functools.partial(
        standing, store=store, audit=tmp_path / "audit.log", now_ms=main.now_ms, chance=random.Random(1)
    )
    async with alone(folder) as mine:
        await aio.until(lambda: bool(mine.registry.members), what="it is founded", timeout_s=30)
        shutil.copytree(folder.path, tmp_path / "before")
        await mine.membership.rotate_root(pb.RotateRootRequest(begin=True, left_behind=["person:root"]))
        exchanged = lambda: mine.own.facts.issuer != Folder(tmp_path / "before").load().facts.issuer  # noqa: E731
        await aio.until(exchanged, what="the instance has renewed", timeout_s=30)
        done = await mine.membership.rotate_root(pb.RotateRootRequest(left_behind=["person:root"]))
        assert not done.rotating
        issuer = mine.own.facts.issuer
    async with alone(Folder(tmp_path / "before")) as late:
        await aio.until(lambda: late.own.facts.issuer == issuer, what="the instance has renewed", timeout_s=30)
        assert Folder(tmp_path / "before").load().facts == late.own.facts
        keys = late.registry.members["controlplane:cp1"].keys
        assert keys[0].digest == late.own.facts.key_digest
    await store.close()

"""What changes while a certificate is being made: it takes a while, and the cluster goes on."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from agent import members
from controlplane.core import request_errors as errors
from controlplane.core.trust import rotation
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import trust_pb2 as pb
from tests.support import aio, trusted
from trust import errands, framing, joining
from trust.core import certificate
from trust.core.identity import Identity
from trust.folder import Folder

REAL = errands.issue_async


class Pause:
    """Certificates that are asked for in the block wait until `go`."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()

    async def issue(self, *arguments: Any) -> str:
        self.begun += 1
        await self.go.wait()
        return await REAL(*arguments)


@contextlib.contextmanager
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pause]:
    pause = Pause()
    with monkeypatch.context() as patched:
        patched.setattr(errands, "issue_async", pause.issue)
        yield pause
    pause.go.set()


async def asked(pause: Pause, count: int) -> None:
    await aio.until(lambda: pause.begun >= count, what="the certificates are being made", timeout_s=20)


@aio.bounded(60)
async def test_the_last_use_of_a_token_lets_one_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two who come together to the same instance; the other is told."""
    async with trusted.cluster(tmp_path) as made:
        async with made.trust(made.admin) as admin:
            token = (await admin.CreateToken(pb.CreateTokenRequest(role="node", uses=1))).token
        with paused(monkeypatch) as pause:
            joins = [asyncio.create_task(made.join(name, token)) for name in ("n1", "n2")]
            await asked(pause, 2)
            pause.go.set()
            ends = await asyncio.gather(*joins, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, joining.NotJoined)]
        assert [str(one).endswith("is used up") for one in refused] == [True]
        assert len([name for name in made.standing.registry.members if name.startswith("node:")]) == 1


@aio.bounded(60)
async def test_a_join_waits_for_its_certificate_longer_than_for_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a thousand nodes that ask together are made two at a time."""
    async with trusted.cluster(tmp_path) as made:
        async with made.trust(made.admin) as admin:
            token = (await admin.CreateToken(pb.CreateTokenRequest(role="node"))).token
        monkeypatch.setattr(framing, "TIMEOUT_S", 2.0)
        with paused(monkeypatch) as pause:
            join = asyncio.create_task(made.join("n1", token))
            await asked(pause, 1)
            await asyncio.sleep(3.0)
            pause.go.set()
            assert (await join).identity.name == "n1"


@aio.bounded(60)
async def test_a_certificate_that_took_long_to_make_is_not_from_before_its_member_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes let nobody in whose is, for as long as they hold it."""

    async def slow(*arguments: Any) -> str:
        made = await REAL(*arguments)
        await asyncio.sleep(1.5)
        return made

    async with trusted.cluster(tmp_path) as made:
        async with made.trust(made.admin) as admin:
            token = (await admin.CreateToken(pb.CreateTokenRequest(role="node"))).token
        monkeypatch.setattr(errands, "issue_async", slow)
        own = await made.join("n1", token)
        peer = dpb.NetworkPeer(node_id="n1", trusted_since=made.standing.registry.members["node:n1"].joined_at)
        network = dpb.NodeNetwork(peers=[peer])
        said = {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [own.chain]}
        assert not members.Members(lambda: network).refusal(said)


@aio.bounded(60)
async def test_a_token_that_is_revoked_meanwhile_opens_no_door_and_stays_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written of a join is made of what is known then, not of what was when it began."""
    async with trusted.cluster(tmp_path) as made, made.trust(made.admin) as admin:
        given = await admin.CreateToken(pb.CreateTokenRequest(role="node", uses=3))
        with paused(monkeypatch) as pause:
            join = asyncio.create_task(made.join("n1", given.token))
            await asked(pause, 1)
            await admin.RevokeToken(pb.RevokeTokenRequest(id=given.record.id))
            pause.go.set()
            with pytest.raises(joining.NotJoined, match="was revoked"):
                await join
        kept = (await admin.ListTokens(pb.ListTokensRequest())).tokens
        assert given.record.id not in {one.id for one in kept}
        assert "node:n1" not in made.standing.registry.members


@aio.bounded(60)
async def test_an_exchange_of_the_root_that_begins_meanwhile_is_not_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who joined or renewed as it began has a certificate of the root that their record names."""
    async with trusted.cluster(tmp_path) as made:
        membership, registry = made.standing.membership, made.standing.registry
        own = await made.join("n1")
        async with made.trust(made.admin) as admin:
            token = (await admin.CreateToken(pb.CreateTokenRequest(role="node", uses=1))).token
        _, wanted = await errands.request_async()
        with paused(monkeypatch) as pause:
            join = asyncio.create_task(made.join("n2", token))
            request = pb.RenewRequest(certificate_request=wanted)
            renewal = asyncio.create_task(membership.renew(own.identity, own.facts.key_digest, request))
            await asked(pause, 2)
            await membership.rotate_root(pb.RotateRootRequest(begin=True))
            new = rotation.pin(registry.trust.roots[0])
            pause.go.set()
            second, answer = await join, await renewal
        assert rotation.pin(registry.trust.roots[0]) == new
        assert registry.trust.rotation
        issuer = certificate.read(registry.trust.roots[0].certificate.encode()).issuer
        for name, chain in (("node:n2", second.chain), ("node:n1", answer.certificate.encode())):
            facts = certificate.read(chain)
            key = registry.members[name].keys[0]
            assert (key.digest, key.root) == (facts.key_digest, new)
            assert facts.issuer == issuer
        assert len(certificate.split(answer.roots.encode())) == 2
        assert len(certificate.split(Folder(tmp_path / "n2").load().roots)) == 2


@aio.bounded(60)
async def test_who_is_taken_out_meanwhile_stays_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal does not bring back the record that it began with."""
    async with trusted.cluster(tmp_path) as made:
        own = await made.join("n1")
        _, wanted = await errands.request_async()
        with paused(monkeypatch) as pause:
            request = pb.RenewRequest(certificate_request=wanted)
            who = Identity(cluster=own.identity.cluster, role=own.identity.role, name="n1")
            renewal = asyncio.create_task(made.standing.membership.renew(who, own.facts.key_digest, request))
            await asked(pause, 1)
            async with made.trust(made.admin) as admin:
                await admin.RevokeMember(pb.RevokeMemberRequest(name="node:n1"))
            pause.go.set()
            with pytest.raises(errors.Forbidden, match="was removed from this cluster meanwhile"):
                await renewal
        assert "node:n1" not in made.standing.registry.members
        async with made.dispatcher(own) as stub:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Session().read()  # type: ignore[call-arg]


@aio.bounded(60)
async def test_of_two_admins_who_take_each_other_out_one_stays(tmp_path: Path) -> None:
    """Each of them was not the last one when it was looked at."""
    async with trusted.cluster(tmp_path) as made:
        await made.person("ann", "admin")
        both = ("person:root", "person:ann")
        revoke = made.standing.membership.revoke_member
        ended = await asyncio.gather(*(revoke(name) for name in both), return_exceptions=True)
        assert ended.count(None) == 1
        (refused,) = [one for one in ended if one is not None]
        assert isinstance(refused, errors.NotNow)
        (stays,) = [name for name in both if name in made.standing.registry.members]
        assert f"{stays} is the last admin" in refused.message


@aio.bounded(60)
async def test_a_token_that_is_made_while_a_root_is_being_made_is_kept(tmp_path: Path) -> None:
    """And of two who begin an exchange together, one does."""
    async with trusted.cluster(tmp_path) as made:
        membership, registry = made.standing.membership, made.standing.registry
        request = pb.RotateRootRequest(begin=True)
        beginnings = [asyncio.create_task(membership.rotate_root(request)) for _ in range(2)]
        await asyncio.sleep(0)
        assert not registry.trust.rotation
        created = await membership.create_token(pb.CreateTokenRequest(role="node"), "root")
        first, second = await asyncio.gather(*beginnings, return_exceptions=True)
        assert {isinstance(first, errors.RequestError), isinstance(second, errors.RequestError)} == {True, False}
        assert len(registry.trust.roots) == 2
        assert created.record.id in {one.id for one in registry.trust.tokens}

"""Joining a machine: what can be wrong with it has one clear error, nothing is half done, and a second try works."""

import asyncio
import dataclasses
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent import options as agent_options
from agent.adapters import whole
from agent.adapters.layout import Layout
from controlplane import main
from controlplane.store import memory
from controlplane.trust import recover_admin
from controlplane.trust.membership import SEALING_KEY
from deploy.host import checks, node
from deploy.host.errors import HostError
from deploy.host.places import BLOB_PORT, Places
from manifests import configuration
from manifests.documents import Source
from protos.orch.v1 import trust_pb2
from tests.support import aio, killing, trusted
from trust import errands, joining
from trust.core import lifetime
from trust.core.identity import Role
from trust.folder import PENDING, Folder, Material, NotTrusted, material

HERE = "127.0.0.1"


def wish(made: trusted.Cluster, **other: str) -> node.Wish:
    """A node n1 at this machine's own address."""
    plain = node.Wish(
        token=made.tokens["node_token"], server=made.address, door=made.door, name="n1", address="127.0.0.77"
    )
    return dataclasses.replace(plain, **other)


async def join(asked: node.Wish, places: Places) -> str:
    return await asyncio.to_thread(node.join, asked, places)


async def refused(asked: node.Wish, places: Places) -> str:
    """Why; nothing was written."""
    before = files(places)
    with pytest.raises((HostError, joining.NotJoined, NotTrusted)) as error:
        await join(asked, places)
    assert error.value.__class__ is not HostError or error.value.hint  # type: ignore[union-attr]
    after = files(places)
    waiting = {str(places.agent_trust / PENDING), str(places.agent / "node.json")}
    assert after - before - waiting == set(), "nothing is half done"
    return str(error.value)


def files(places: Places) -> set[str]:
    return {str(path) for path in places.root.rglob("*") if path.is_file()}


def configured(places: Places) -> dict[str, list[str]]:
    path = places.configuration / "agent.yaml"
    return configuration.values(agent_options.parser(), Source(name=str(path), text=path.read_bytes()))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(root=tmp_path / "root")


@aio.bounded(60)
async def test_a_join_leaves_a_certificate_and_a_configuration_that_the_agent_takes(
    tmp_path: Path, places: Places
) -> None:
    """And says what to start, where systemd does not."""
    async with trusted.cluster(tmp_path / "c") as made:
        said = await join(wish(made), places)
        assert "node n1 has joined the cluster" in said
        assert "start its agent with: orch-agent --config /etc/orch/agent.yaml" in said
        own = Folder(places.agent_trust).load(Role.NODE)
        assert own.identity.name == (places.agent / "node.json").read_text().strip()
        path = places.configuration / "agent.yaml"
        source = Source(name=str(path), text=path.read_bytes())
        told = agent_options.parser().parse_args(configuration.arguments(agent_options.parser(), source, []))
        assert (told.name, told.server, told.address) == ("n1", made.address, "127.0.0.77")
        assert (told.state, told.trust, told.run_dir) == tuple(map(str, (places.agent, places.agent_trust, places.run)))
        async with trusted.session(made, own):
            assert made.instance.dispatcher.sessions.get(own.identity.name) is not None


@aio.bounded(60)
async def test_said_again_it_is_the_same_node_and_keeps_what_a_person_has_set(tmp_path: Path, places: Places) -> None:
    """The second try uses nothing of a token up. A node that was put out comes back with its id."""
    async with trusted.cluster(tmp_path / "c") as made:
        token = await once(made)
        await join(wish(made, token=token), places)
        first = Folder(places.agent_trust).load().facts
        path = places.configuration / "agent.yaml"
        path.write_text(path.read_text().replace("#share-rate: 0", "share-rate: 50Mi"))
        await join(wish(made, token=token), places)
        again = Folder(places.agent_trust).load().facts
        assert (again.key_digest, again.identity) == (first.key_digest, first.identity)
        assert configured(places)["share-rate"] == ["50Mi"]
        await put_out(made, first.identity.member)
        assert "is used up" in await refused(wish(made, token=token), places)
        await join(wish(made), places)
        assert Folder(places.agent_trust).load().identity == first.identity


@aio.bounded(60)
async def test_a_join_that_broke_off_is_ended_by_the_next(tmp_path: Path, places: Places) -> None:
    """Behind the certificate, and before it with its key on disk."""
    async with trusted.cluster(tmp_path / "c") as made:
        await join(wish(made), places)
        first = Folder(places.agent_trust).load().facts
        (places.configuration / "agent.yaml").unlink()
        await join(wish(made), places)
        assert configured(places)["name"] == ["n1"]
        key = Folder(places.agent_trust).load().key
        for path in places.agent_trust.iterdir():
            path.unlink()
        Folder(places.agent_trust).write(PENDING, key)
        await join(wish(made), places)
        assert Folder(places.agent_trust).load().facts.key_digest == first.key_digest


@pytest.mark.slow
@pytest.mark.parametrize("was_a_node", [False, True])
@aio.bounded(300)
async def test_wherever_a_join_is_killed_the_same_command_ends_it(was_a_node: bool, tmp_path: Path) -> None:
    """With the same token, whose one use is not used twice; also where there is a certificate that was put out."""
    async with trusted.cluster(tmp_path / "c") as made:
        for killer in killing.killers(tmp_path):
            places = Places(root=tmp_path / ("root" if was_a_node else f"root-{killer.at}"))
            asked = wish(made, token=await once(made))
            was_killed = await asyncio.to_thread(killer.kills, command(asked, places), places.root)
            await join(asked, places)
            own = Folder(places.agent_trust).load(Role.NODE)
            assert believed(made, own)
            assert configured(places)["name"] == ["n1"]
            assert not (places.agent_trust / PENDING).exists()
            await put_out(made, own.identity.member)
            if not was_killed:
                break
        assert killer.at > 5, "it was killed at each of its steps"


@aio.bounded(90)
async def test_when_everybody_s_certificate_has_expired_there_is_a_way_back(tmp_path: Path, places: Places) -> None:
    """The control plane renews its own when it starts; it lets an admin in, who makes tokens; a node is who it was."""
    long_ago_ms, store = main.now_ms() - lifetime.LEAF_MS - lifetime.DAY_MS, memory.MemoryStore()
    async with trusted.cluster(tmp_path / "c", store, founded_ms=long_ago_ms) as made:
        before = await expired_node(made, places, long_ago_ms)
        await aio.until(lambda: is_good(made.standing.own), what="the control plane renews its own", timeout_s=30)
        assert not is_good(made.admin)
        recovered = await recover_admin.recover(Folder(tmp_path / "c" / "cp"), store, "root", main.now_ms())
        async with made.trust(await made.join("again", recovered.token)) as admin:
            token = (await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node"))).token
        await join(wish(made, token=token), places)
        own = Folder(places.agent_trust).load(Role.NODE)
        assert own.identity == before.identity
        assert is_good(own)
        assert believed(made, own)


def is_good(own: Material) -> bool:
    return own.facts.not_after_ms > main.now_ms()


async def expired_node(made: trusted.Cluster, places: Places, joined_ms: int) -> Material:
    """One that joined so long ago that its certificate has run out."""
    registry = made.standing.registry
    root = registry.trust.roots[0]
    by = errands.Root(certificate=root.certificate, sealed_key=root.sealed_key, about=registry.cluster)
    places.agent.mkdir(parents=True)
    node_id = whole.node_id(Layout(places.agent, places.run))
    key, asked = await errands.request_async()
    wanted = errands.Wanted(cluster=registry.cluster, role=Role.NODE, name=node_id)
    sealing_key = (made.folder / "cp" / SEALING_KEY).read_bytes()
    chain = await errands.issue_async(asked, wanted, by, sealing_key, joined_ms)
    own = material(key.encode(), chain.encode(), root.certificate.encode())
    Folder(places.agent_trust).save(own)
    kept = trust_pb2.MemberKey(digest=own.facts.key_digest, expires_at=own.facts.not_after_ms)
    name = own.identity.member
    await registry.commit(members=[trust_pb2.MemberRecord(name=name, role=Role.NODE, node_name="n1", keys=[kept])])
    return own


def believed(made: trusted.Cluster, own: Material) -> bool:
    record = made.standing.registry.members[own.identity.member]
    return own.facts.key_digest in [key.digest for key in record.keys]


def command(asked: node.Wish, places: Places) -> list[str]:
    """The join as a process."""
    script = (
        "import pathlib; from deploy.host import node, places; "
        f"node.join(node.{asked!r}, places.Places(root=pathlib.Path({str(places.root)!r})))"
    )
    return [sys.executable, "-c", script]


async def once(made: trusted.Cluster) -> str:
    """A token that one may join with."""
    async with made.trust(made.admin) as admin:
        return (await admin.CreateToken(trust_pb2.CreateTokenRequest(role="node", uses=1))).token


async def put_out(made: trusted.Cluster, member: str) -> None:
    async with made.trust(made.admin) as admin:
        await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name=member))


@aio.bounded(60)
async def test_what_is_wrong_with_a_join_is_told(tmp_path: Path, places: Places) -> None:
    """One after the other on one machine; the last try works."""
    async with trusted.cluster(tmp_path / "c") as made:
        other = trusted.found(tmp_path / "other")
        away = "127.0.0.1:1"
        wrongs = {
            "is not of the cluster at": wish(made, token=other["node_token"]),
            "the token is for the role controlplane": wish(made, token=made.tokens["controlplane_token"]),
            "the join token is damaged": wish(made, token=made.tokens["node_token"][:-2]),
            "cannot read the token from": wish(made, token=f"@{tmp_path}/gone"),
            f"cannot reach the door of the control plane at {away}": wish(made, door=away),
            "--server: not the address of a machine": wish(made, server="http://10.0.0.1/"),
            "--address: 203.0.113.9 is no address of this machine": wish(made, address="203.0.113.9"),
            "--address: 'home' does not appear to be": wish(made, address="home"),
            "'N 1' is no name for a node": wish(made, name="N 1"),
        }
        for said, asked in wrongs.items():
            assert said in await refused(asked, places)
        await join(wish(made), Places(root=tmp_path / "another"))
        assert "the name n1 belongs to another node" in await refused(wish(made), places)
        await join(wish(made, name="n2"), places)


@aio.bounded(60)
async def test_a_port_that_is_in_use_is_told_before_a_token_is_used(tmp_path: Path, places: Places) -> None:
    async with trusted.cluster(tmp_path / "c") as made:
        asked = wish(made, token=await once(made))
        with socket.create_server(("127.0.0.77", BLOB_PORT)):
            assert f"port {BLOB_PORT} of 127.0.0.77 is in use" in await refused(asked, places)
        await join(asked, places)


@pytest.mark.parametrize(("key", "usual"), [("blob-port", BLOB_PORT), ("metrics-port", agent_options.METRICS_PORT)])
@aio.bounded(60)
async def test_a_port_that_the_file_names_is_the_one_that_has_to_be_free(
    key: str, usual: int, tmp_path: Path, places: Places
) -> None:
    """So that the remedy which is told is one; 0 wants none."""
    async with trusted.cluster(tmp_path / "c") as made:
        with socket.create_server(("127.0.0.77", usual)), socket.create_server(("127.0.0.77", 0)) as other:
            with pytest.raises(HostError) as error:
                await join(wish(made), places)
            path = places.configuration / "agent.yaml"
            assert f"`{key}` in {path}" in error.value.hint
            path.parent.mkdir(parents=True)
            taken = other.getsockname()[1]
            path.write_text(f"{key}: {taken}\n")
            assert f"port {taken} of 127.0.0.77 is in use" in await refused(wish(made), places)
            path.write_text(f"{key}: 0\n")
            await join(wish(made), places)
        assert configured(places)[key] == ["0"]


@aio.bounded(60)
async def test_a_node_of_one_cluster_does_not_slip_into_another(tmp_path: Path, places: Places) -> None:
    """Its certificate stays as it is. One of another role is no certificate of a node."""
    async with trusted.cluster(tmp_path / "c") as made, trusted.cluster(tmp_path / "d") as other:
        await join(wish(made), places)
        before = Folder(places.agent_trust).load().facts
        assert "this machine is a node of the cluster" in await refused(wish(other), places)
        assert Folder(places.agent_trust).load().facts == before
        Folder(places.agent_trust).save(made.admin)
        assert "is the certificate of admin root, and one of role node is needed" in await refused(wish(made), places)


def left(places: Places, **wish_: bool) -> str:
    """What leaving says, in a network of its own: it takes the agent's rules and links away."""
    said = f"leaving.leave(leaving.Wish(**{wish_}), places.Places(root=pathlib.Path({str(places.root)!r})))"
    script = f"import pathlib; from deploy.host import leaving, places; print({said})"
    command = ["unshare", "--net", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


@pytest.mark.root
@pytest.mark.parametrize("broke_off", [False, True])
@aio.bounded(60)
async def test_a_node_that_has_left_may_join_another_cluster(broke_off: bool, tmp_path: Path, places: Places) -> None:
    """Nothing of it stays, not even its key. One that broke off behind the agent's files is ended by the next."""
    async with trusted.cluster(tmp_path / "c") as made, trusted.cluster(tmp_path / "d") as other:
        await join(wish(made), places)
        path = places.configuration / "agent.yaml"
        path.write_text(path.read_text() + "cgroup-parent: /orch-is-not-there\n")
        if broke_off:
            (places.agent / "node.json").unlink()
        assert "orchctl delete node n1" in await asyncio.to_thread(left, places)
        assert files(places) == set()
        assert not places.agent.exists()
        await join(wish(other), places)


@pytest.mark.root
def test_a_machine_that_is_no_node_cannot_leave(places: Places) -> None:
    assert "HostError: this machine is no node: neither" in left(places)


@aio.bounded(60)
async def test_a_file_that_is_wrong_is_left_to_the_person(tmp_path: Path, places: Places) -> None:
    """It is not written over."""
    async with trusted.cluster(tmp_path / "c") as made:
        path = places.configuration / "agent.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("adress: 10.0.0.1\n")
        said = await refused(wish(made), places)
        assert f'{path}:1:1: adress: unknown key; did you mean "address"?' in said
        assert path.read_text() == "adress: 10.0.0.1\n"
        path.unlink()
        await join(wish(made), places)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.1", ("10.0.0.1", 7400)),
        ("10.0.0.1:7500", ("10.0.0.1", 7500)),
        ("[fd00::1]", ("fd00::1", 7400)),
        ("[fd00::1]:7500", ("fd00::1", 7500)),
        ("cp.example", ("cp.example", 7400)),
    ],
)
def test_a_server_is_a_host_with_or_without_a_port(text: str, found: tuple[str, int]) -> None:
    assert checks.server(text, 7400) == found
    assert checks.server(checks.joined(*found), 1) == found


def test_the_own_address_is_the_one_on_the_way() -> None:
    assert checks.own_address(HERE) == HERE

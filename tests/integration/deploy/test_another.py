"""A machine becomes one more control plane, by its one command: what can be wrong has one clear error, nothing is half
done, and a second try works. Beside it, a first one whose store is an etcd that there is already.
"""

import asyncio
import contextlib
import dataclasses
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import arguments as instance_options
from controlplane import member
from controlplane.trust import storeplace
from controlplane.trust.membership import SEALING_KEY
from deploy.host import another, controlplane, first
from deploy.host.errors import HostError
from deploy.host.places import Places
from manifests import configuration
from manifests.documents import Source
from orchctl.errors import OrchctlError
from protos.orch.v1 import trust_pb2
from tests.support import aio, killing, machines_of_control, trusted
from tests.support.machines_of_control import Estate, Machine, members
from tests.support.waiting import until
from trust import joining
from trust.core.identity import Role
from trust.folder import IDENTITY, PENDING, Folder, NotTrusted

ADDRESS = "127.0.0.79"
PARSERS = {"etcd": member.parser, "controlplane": instance_options.parser}


def wish(made: trusted.Cluster, **other: str) -> another.Wish:
    """A control plane cp2 at an address of this machine's own."""
    token = made.tokens["controlplane_token"]
    plain = another.Wish(token=token, server=made.address, door=made.door, name="cp2", address=ADDRESS)
    return dataclasses.replace(plain, **other)


async def join(asked: another.Wish, places: Places) -> str:
    return await asyncio.to_thread(another.join, asked, places)


async def refused(asked: another.Wish, places: Places) -> str:
    """Why, with the remedy where there is one; nothing was written but a key that waits for the next try."""
    before = files(places)
    with pytest.raises((HostError, OrchctlError, joining.NotJoined, NotTrusted)) as error:
        await join(asked, places)
    assert {name for name in files(places) - before if not name.endswith(f"trust.new/{PENDING}")} == set()
    return f"{error.value} {getattr(error.value, 'hint', '')}"


def files(places: Places) -> set[str]:
    return {str(path) for path in places.root.rglob("*") if path.is_file()}


def configured(places: Places, program: str) -> dict[str, list[str]]:
    path = places.configuration / f"{program}.yaml"
    return configuration.values(PARSERS[program](), Source(name=str(path), text=path.read_bytes()))


async def once(made: trusted.Cluster) -> str:
    """A token that one may join with."""
    async with made.trust(made.admin) as admin:
        return (await admin.CreateToken(trust_pb2.CreateTokenRequest(role="controlplane", uses=1))).token


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(root=tmp_path / "root")


@aio.bounded(90)
async def test_what_is_wrong_with_a_join_is_told(tmp_path: Path, places: Places) -> None:
    """One after the other on one machine; the last try works, and leaves what the instance is started by."""
    async with trusted.cluster(tmp_path / "c") as made:
        other = trusted.found(tmp_path / "other")
        wrongs = {
            "the token is not of the cluster at": wish(made, token=other["controlplane_token"]),
            "the token is for the role node": wish(made, token=made.tokens["node_token"]),
            "the join token is damaged": wish(made, token=made.tokens["controlplane_token"][:-2]),
            "cannot read the token from": wish(made, token=f"@{tmp_path}/gone"),
            "cannot reach the door of the control plane at 127.0.0.1:1": wish(made, door="127.0.0.1:1"),
            "--server: not the address of a machine": wish(made, server="http://10.0.0.1/"),
            "--address: 203.0.113.9 is no address of this machine": wish(made, address="203.0.113.9"),
            "'CP 2' is no name for a control plane": wish(made, name="CP 2"),
            "there is a controlplane cp1 already, with another key": wish(made, name="cp1"),
        }
        for said, asked in wrongs.items():
            assert said in await refused(asked, places)
        said = await join(wish(made), places)
        assert "control plane cp2 has joined the cluster" in said
        assert "orch-controlplane --config /etc/orch/controlplane.yaml" in said
        assert "orch-etcd" not in said, "this cluster's store is somebody else's"
        own = Folder(places.trust).load(Role.CONTROLPLANE)
        assert own.identity.name == "cp2"
        told = configured(places, "controlplane")
        assert (told["listen"], told["door"]) == ([f"{ADDRESS}:7400"], [f"{ADDRESS}:7401"])
        assert (told["trust"], told["state"]) == ([str(places.trust)], [str(places.instance)])


@pytest.mark.parametrize("port", [7400, 7401, 2379, 2380])
@aio.bounded(60)
async def test_a_port_that_is_in_use_is_told_before_a_token_is_used(port: int, tmp_path: Path, places: Places) -> None:
    async with trusted.cluster(tmp_path / "c") as made:
        asked = wish(made, token=await once(made))
        with socket.create_server((ADDRESS, port)):
            assert f"port {port} of {ADDRESS} is in use" in await refused(asked, places)
        await join(asked, places)


@aio.bounded(60)
async def test_a_join_that_broke_off_is_ended_by_the_next(tmp_path: Path, places: Places) -> None:
    """Before its answer came, before its certificate was in its place, and before it was configured."""
    async with trusted.cluster(tmp_path / "c") as made:
        asked = wish(made, token=await once(made))
        await join(asked, places)
        own = Folder(places.trust).load(Role.CONTROLPLANE)
        fresh = places.trust.with_name("trust.new")
        (places.configuration / "controlplane.yaml").unlink()
        await join(asked, places)
        assert configured(places, "controlplane")["name"] == ["cp2"]
        places.trust.rename(fresh)
        await join(asked, places)
        assert Folder(places.trust).load().facts == own.facts
        places.trust.rename(fresh)
        Folder(fresh).write(PENDING, own.key)
        (fresh / IDENTITY).unlink()
        await join(asked, places)
        assert Folder(places.trust).load().facts.key_digest == own.facts.key_digest, (
            "the token's one use is not used twice"
        )
        assert not fresh.exists()


@pytest.mark.slow
@aio.bounded(300)
async def test_wherever_a_join_is_killed_the_same_command_ends_it(tmp_path: Path) -> None:
    """With the same token, whose one use is not used twice."""
    async with trusted.cluster(tmp_path / "c") as made:
        for killer in killing.killers(tmp_path):
            places = Places(root=tmp_path / f"root-{killer.at}")
            asked = wish(made, token=await once(made))
            script = (
                "import pathlib; from deploy.host import another, places; "
                f"another.join(another.{asked!r}, places.Places(root=pathlib.Path({str(places.root)!r})))"
            )
            was_killed = await asyncio.to_thread(killer.kills, [sys.executable, "-c", script], places.root)
            await join(asked, places)
            own = Folder(places.trust).load(Role.CONTROLPLANE)
            assert not (places.trust / PENDING).exists()
            record = made.standing.registry.members["controlplane:cp2"]
            assert own.facts.key_digest in [key.digest for key in record.keys]
            assert (Folder(places.trust).path / SEALING_KEY).read_bytes() == (
                tmp_path / "c/cp" / SEALING_KEY
            ).read_bytes()
            assert configured(places, "controlplane")["name"] == ["cp2"]
            async with made.trust(made.admin) as admin:
                await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name="controlplane:cp2"))
            if not was_killed:
                break
        assert killer.at > 8, "it was killed at each of its steps"


@aio.bounded(120)
async def test_a_start_of_another_cluster_that_broke_off_is_not_taken_for_a_join(
    tmp_path: Path, places: Places
) -> None:
    """Such as of `cluster init` on this machine: nobody would find out that it has not joined."""
    async with trusted.cluster(tmp_path / "c") as made:
        trusted.found(tmp_path / "other")
        (tmp_path / "other" / "cp").rename(_made(controlplane.beside(places)))
        said = await refused(wish(made), places)
        assert "and the token is of another" in said
        assert f"remove {controlplane.beside(places)}" in said


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    return path


@aio.bounded(60)
async def test_a_control_plane_of_one_cluster_does_not_slip_into_another(tmp_path: Path, places: Places) -> None:
    """Nor does it say that it had joined. A certificate of another role is none of a control plane."""
    async with trusted.cluster(tmp_path / "c") as made, trusted.cluster(tmp_path / "d") as other:
        await join(wish(made), places)
        before = Folder(places.trust).load().facts
        said = await refused(wish(other), places)
        assert f"this machine is the control plane cp2 of the cluster {made.admin.identity.cluster}" in said
        assert "uninstall --with-data" in said
        assert Folder(places.trust).load().facts == before
        Folder(places.trust).save(made.admin)
        assert "is the certificate of admin root, and one of role controlplane is needed" in await refused(
            wish(made), places
        )


@aio.bounded(60)
async def test_a_file_that_is_wrong_is_left_to_the_person(tmp_path: Path, places: Places) -> None:
    """It is told before a token is used, and is not written over."""
    async with trusted.cluster(tmp_path / "c") as made:
        asked = wish(made, token=await once(made))
        path = places.configuration / "controlplane.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("dor: 10.0.0.1:7401\n")
        assert f'{path}:1:1: dor: unknown key; did you mean "door"?' in await refused(asked, places)
        assert path.read_text() == "dor: 10.0.0.1:7401\n"
        path.unlink()
        await join(asked, places)


# With etcd, and processes that are started by what was written ------------------------------------------------------


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Estate]:
    monkeypatch.setenv("ORCH_CONFIG", str(tmp_path / "config.yaml"))  # where `init` makes the admin's context
    with machines_of_control.estate(tmp_path) as made:
        yield made


def at(machine: Machine) -> Places:
    """Where the machine's folders are, as on a machine of its own."""
    return Places(root=machine.folder)


def start(machine: Machine) -> None:
    """By the commands and the files that the person was told."""
    if storeplace.load(Folder(at(machine).trust)).member is not None:
        machine.start_configured("etcd", "controlplane.member", at(machine).configuration / "etcd.yaml")
    machine.start_configured("instance", "controlplane", at(machine).configuration / "controlplane.yaml")


def founded(machine: Machine, *etcd: str) -> str:
    asked = controlplane.Wish(name=machine.name, address=machine.host)
    return first.init(first.Wish(machine=asked, context="default", admin="root", etcd=etcd), at(machine))


def control_plane_token(said: str) -> str:
    return next(line.split()[1] for line in said.splitlines() if "| orchctl cluster join" in line)


def wish_of(machine: Machine, there: Machine, token: str) -> another.Wish:
    return another.Wish(token=token, server=there.host, name=machine.name, address=machine.host)


@pytest.mark.etcd
@pytest.mark.timeout(240)
def test_a_second_and_a_third_control_plane_join_by_one_command_each(estate: Estate) -> None:
    """With their members of etcd. One whose join broke off behind the taking in goes on by the same command."""
    one, two, three = (estate.machine(name) for name in ("cp1", "cp2", "cp3"))
    token = control_plane_token(founded(one))
    start(one)
    estate.until_leads(one)
    assert "orch-etcd --config /etc/orch/etcd.yaml" in another.join(wish_of(two, one, token), at(two))
    with pytest.raises(OrchctlError, match="one member of etcd joins at a time"):
        another.join(wish_of(three, one, token), at(three))
    (at(two).configuration / "etcd.yaml").unlink()
    another.join(wish_of(two, one, token), at(two))
    start(two)
    estate.until_leads(one, two)
    until(
        lambda: ("cp2", False) in machines_of_control.members_at(one.host, at(one).trust),
        what="cp2 counts",
        timeout_s=40,
    )
    another.join(wish_of(three, two, token), at(three))
    start(three)
    estate.until_leads(one, two, three)
    counts = [("cp1", False), ("cp2", False), ("cp3", False)]
    until(lambda: machines_of_control.members_at(one.host, at(one).trust) == counts, what="all count", timeout_s=40)


@pytest.mark.etcd
@pytest.mark.timeout(240)
def test_a_cluster_is_founded_in_an_etcd_that_there_is(estate: Estate) -> None:
    """What is wrong with it is told while nothing is written down. No member is started, here or beside the second."""
    owner, one, two, third = (estate.machine(name) for name in ("etcd", "cp1", "cp2", "other"))
    estate.found(owner, "--context=owner")  # its certificates serve as those of an etcd of somebody else's
    cert, key = machines_of_control.split(owner.trust / "store.pem", estate.folder)
    where = f"--etcd=https://{owner.host}:2379"
    given = [where, f"--etcd-ca={owner.trust / 'store-roots.pem'}", f"--etcd-cert={cert}", f"--etcd-key={key}"]
    stranger = [where, f"--etcd-ca={estate.folder / 'trust' / 'owner' / 'roots.pem'}", *given[2:]]
    refused_founding(one, "no member of the etcd answers", *given)  # it does not run yet
    owner.start_etcd()
    until(lambda: answers(owner), what="the etcd answers", timeout_s=40)
    refused_founding(one, "its certificate is not believed, by --etcd-ca", *stranger)
    refused_founding(one, "are no CA, certificate and key that fit", *given[:3], f"--etcd-key={cert}")
    refused_founding(one, "cannot read one of", *given[:3], f"--etcd-key={estate.folder / 'gone'}")
    refused_founding(one, "--etcd-cert and --etcd-key must be given, too", *given[:2])
    said = founded(one, *given)
    assert "orch-controlplane --config" in said
    assert "orch-etcd" not in said
    assert not (at(one).configuration / "etcd.yaml").exists()
    start(one)
    estate.until_leads(one)
    another.join(wish_of(two, one, control_plane_token(said)), at(two))
    assert not (at(two).configuration / "etcd.yaml").exists()
    start(two)
    estate.until_leads(one, two)
    refused_founding(third, "holds a cluster already", *given, context="another")


def answers(owner: Machine) -> bool:
    with contextlib.suppress(OSError):
        return bool(members(owner))
    return False


def refused_founding(machine: Machine, why: str, *etcd: str, context: str = "default") -> None:
    asked = controlplane.Wish(name=machine.name, address=machine.host)
    with pytest.raises((HostError, OrchctlError), match=why):
        first.init(first.Wish(machine=asked, context=context, admin="root", etcd=etcd), at(machine))
    assert files(at(machine)) == set()

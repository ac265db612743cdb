"""A machine becomes the first control plane of a cluster, a new one or one that is restored; what its end takes along.

Without systemd: what is written and made, and what the person is told to start.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from controlplane import arguments, main
from controlplane.store import memory
from controlplane.trust import backup, restoring, storeplace
from deploy.host import controlplane, first, forgetting, restore
from deploy.host.errors import HostError
from deploy.host.places import Places
from manifests import configuration
from manifests.documents import Source
from orchctl import config
from orchctl.errors import OrchctlError
from tests.support import aio, killing, trusted
from trust.core.identity import Role
from trust.folder import Folder

ADDRESS = "127.0.0.78"
METRICS = f"{ADDRESS}:{arguments.METRICS_PORT}"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A root of its own, and the contexts of a person of its own."""
    monkeypatch.setenv("ORCH_CONFIG", str(tmp_path / "person" / "config.yaml"))
    return Places(root=tmp_path / "root")


def wish(context: str = "default") -> first.Wish:
    machine = controlplane.Wish(name="cp1", address=ADDRESS)
    return first.Wish(machine=machine, context=context, admin="ann")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def configured(places: Places, key: str) -> Sequence[str]:
    path = places.configuration / "controlplane.yaml"
    return configuration.values(arguments.parser(), Source(name=str(path), text=path.read_bytes()))[key]


# Ports ------------------------------------------------------------------------------------------------------------


def test_metrics_are_served_at_a_port_that_is_no_node_s(places: Places) -> None:
    """A node on the same machine has the usual one of nodes."""
    assert "orch-controlplane --config /etc/orch/controlplane.yaml" in first.init(wish(), places)
    assert configured(places, "metrics") == [METRICS]


@pytest.mark.parametrize("port", [7400, 7401, 2379, 2380, arguments.METRICS_PORT])
def test_a_port_that_is_in_use_is_told_before_anything_is_done(port: int, places: Places) -> None:
    with socket.create_server((ADDRESS, port)), pytest.raises(HostError, match=f"port {port} of {ADDRESS} is in use"):
        first.init(wish(), places)
    assert files(places.root) == set()


def test_the_remedy_for_the_port_of_metrics_is_one(places: Places) -> None:
    """What a person has set in the file is what is checked, and what stays."""
    places.configuration.mkdir(parents=True)
    path = places.configuration / "controlplane.yaml"
    with socket.create_server((ADDRESS, arguments.METRICS_PORT)), socket.create_server((ADDRESS, 0)) as free:
        with pytest.raises(HostError) as error:
            first.init(wish(), places)
        assert f"say another as `metrics` in {path}" in error.value.hint
        other = f"{ADDRESS}:{free.getsockname()[1]}"
        path.write_text(f"metrics: [{other}]\n")
        with pytest.raises(HostError, match="is in use"):
            first.init(wish(), places)
        free.close()
        first.init(wish(), places)
        assert configured(places, "metrics") == [other]
        first.init(wish(), places)
    assert configured(places, "metrics") == [other]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wherever_a_founding_is_killed_the_same_command_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a control plane and an admin of one cluster, and no key lying about."""
    for killer in killing.killers(tmp_path):
        places = Places(root=tmp_path / f"root-{killer.at}")
        monkeypatch.setenv("ORCH_CONFIG", str(places.root / "person" / "config.yaml"))
        script = (
            "import pathlib; from deploy.host import controlplane, first, places; "
            f"first.init(first.{wish()!r}, places.Places(root=pathlib.Path({str(places.root)!r})))"
        )
        script = script.replace("=Wish(", "=controlplane.Wish(")
        was_killed = killer.kills([sys.executable, "-c", script], places.root)
        first.init(wish(), places)
        own = Folder(places.trust).load(Role.CONTROLPLANE)
        known = config.load(config.default_path())
        admin = known.trust(known.current)
        assert admin is not None
        assert Folder(admin).load(Role.ADMIN).identity.cluster == own.identity.cluster
        assert storeplace.load(Folder(places.trust)).member is not None
        assert {path.parent for path in places.root.rglob("identity.pem")} == {places.trust, admin}
        if not was_killed:
            break
    assert killer.at > 8, "it was killed at each of its steps"


# A restored one ---------------------------------------------------------------------------------------------------


async def backed_up(folder: Path, path: Path) -> str:
    """A backup of a cluster that was; the cluster's id."""
    store = memory.MemoryStore()
    async with trusted.cluster(folder, store):
        made = await backup.take(Folder(folder / "cp"), store, main.now_ms())
    backup.write(path, made)
    return made.cluster


async def restored(path: Path, places: Places, context: str = "default") -> str:
    return await asyncio.to_thread(restore.restore, wish(context), path, places)


@aio.bounded(120)
async def test_a_cluster_is_restored_by_one_command(tmp_path: Path, places: Places) -> None:
    """Said again, it goes on from where it is. There is an admin, and what the store is to hold is left."""
    cluster = await backed_up(tmp_path / "c", path := tmp_path / "c.backup")
    said = await restored(path, places)
    assert f"cluster {cluster} is restored as of revision" in said
    assert "orch-etcd --config /etc/orch/etcd.yaml" in said
    assert f'"{ADDRESS}:7400"' in said, "what nodes are told"
    own = Folder(places.trust).load(Role.CONTROLPLANE)
    assert (own.identity.cluster, own.identity.name) == (cluster, "cp1")
    assert (places.trust / restoring.FILE).exists()
    assert configured(places, "metrics") == [METRICS]
    known = config.load(config.default_path())
    admin = known.trust(known.current)
    assert admin is not None
    assert str(Folder(admin).load(Role.ADMIN).identity) == "admin ann"
    (places.trust / restoring.FILE).unlink()  # as the instance does when it has written it
    (places.store / "member").mkdir()
    before = files(tmp_path)
    assert "was restored from" in await restored(path, places)
    assert files(tmp_path) == before
    assert Folder(places.trust).load().facts == own.facts


@aio.bounded(120)
async def test_where_anything_of_a_control_plane_is_nothing_is_restored(tmp_path: Path, places: Places) -> None:
    """Nor from what is no whole backup; each has one clear error, and the last try works."""
    await backed_up(tmp_path / "c", path := tmp_path / "c.backup")
    await backed_up(tmp_path / "d", other := tmp_path / "d.backup")
    damaged = tmp_path / "damaged.backup"
    damaged.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OrchctlError, match="it is damaged: its content does not fit its digest"):
        await restored(damaged, places)
    with pytest.raises(HostError, match=r"cannot read .*gone: No such file"):
        await restored(tmp_path / "gone", places)
    (places.store / "member").mkdir(parents=True)
    with pytest.raises(HostError, match="holds what a member of a store has written"):
        await restored(path, places)
    (places.store / "member").rmdir()
    assert not places.configuration.exists()
    await restored(path, places)
    before = files(tmp_path)
    with pytest.raises(HostError, match=f"{places.trust} is of a control plane"):
        await restored(other, places)
    with pytest.raises(HostError, match="the context default is of admin ann"):
        await restored(other, Places(root=tmp_path / "another"))
    assert files(tmp_path) == before


# Its end ----------------------------------------------------------------------------------------------------------


def test_the_key_to_a_cluster_that_ends_with_the_machine_goes_along(places: Places) -> None:
    """And nothing else of the person: a context of another cluster, and one that was made by hand, stay."""
    first.init(wish("home"), places)
    path = config.default_path()
    assert files(path.parent) > {"config.yaml", "trust/home/identity.pem"}
    mine = config.load(path)
    config.save(path, mine.with_context("other", "10.0.0.9:7400", path.parent / "trust" / "other"))
    assert forgetting.forget(places) == f"removed from {path.parent}: home"
    assert files(path.parent) == {"config.yaml"}
    assert list(config.load(path).contexts) == ["other"]
    config.save(path, config.Config())
    config.save(path, mine.with_context("home", f"{ADDRESS}:7400"))
    assert forgetting.forget(places) == "", "its folder is gone"


def test_without_another_context_no_file_stays(places: Places) -> None:
    first.init(wish(), places)
    forgetting.forget(places)
    assert not config.default_path().parent.exists()


def test_the_key_to_a_cluster_that_goes_on_stays(places: Places) -> None:
    """It may be the only one."""
    first.init(wish(), places)
    own = Folder(places.trust)
    place = storeplace.load(own)
    storeplace.save(own, type(place)(endpoints=[*place.endpoints, "10.0.0.2:2379"], member=place.member))
    before = files(config.default_path().parent)
    assert "goes on elsewhere: the key to it stays in" in forgetting.forget(places)
    assert files(config.default_path().parent) == before


def test_a_machine_without_a_control_plane_has_nothing_to_forget(places: Places) -> None:
    with contextlib.suppress(FileNotFoundError):
        config.default_path().unlink()
    assert forgetting.forget(places) == ""

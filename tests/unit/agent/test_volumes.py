"""Volumes of a task: what a container's configuration says of them, and how long their folders are there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.disk import FileDisk
from agent.adapters.layout import Layout
from agent.core import commit, hostfiles, isolation
from agent.errors import Temporary
from manifests import isolation as rules
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import bounded
from tests.support.fake_leader import task, template
from tests.support.working import SHUTDOWN, alive, machine_with_image
from tests.unit.images.test_scratch import nest

MOUNTS = (
    pb.Mount(volume="work", path="/srv/work"),
    pb.Mount(volume="tools", path="/opt", read_only=True),
)
TASK = "web-1-a"


def mounted(*, own_users: bool) -> list[Mapping[str, Any]]:
    """The mounts of a container with both volumes and a folder in memory above one of them."""
    spec = pb.Container(mounts=MOUNTS, tmpfs={"/srv": pb.Tmpfs()})
    return list(isolation.mounts(spec, (), volumes="/state/volumes", own_users=own_users))


def modes(folder: Path) -> Mapping[str, int]:
    """What is in a folder, with its permissions."""
    return {path.name: path.stat().st_mode & 0o7777 for path in folder.iterdir()}


def test_folders_above_are_mounted_before_those_below() -> None:
    """Whatever kind they are of: else the folder in memory would hide the volume."""
    assert [mount["destination"] for mount in mounted(own_users=False)] == ["/opt", "/srv", "/srv/work"]


def test_a_volume_is_the_folder_of_its_name_without_devices() -> None:
    """Programs on it run, setuid ones among them, as on an emptyDir; who may only read, may only read."""
    opt, _, work = mounted(own_users=False)
    assert work == {
        "destination": "/srv/work",
        "type": "bind",
        "source": "/state/volumes/work",
        "options": ["bind", "nodev", "rw"],
    }
    assert (opt["source"], opt["options"]) == ("/state/volumes/tools", ["bind", "nodev", "ro"])


def test_containers_with_users_of_their_own_have_it_idmapped() -> None:
    """So that its files have the ids that they see, and none of the node's."""
    opt, memory, work = mounted(own_users=True)
    assert work["options"] == ["bind", "nodev", "rw", "idmap"]
    assert opt["options"] == ["bind", "nodev", "ro", "idmap"]
    assert "idmap" not in memory["options"]


def test_an_image_of_a_container_has_nothing_of_its_volumes() -> None:
    """The places of mounts are left out of it."""
    assert {"/srv/work", "/opt"} <= set(commit.places(pb.Container(mounts=MOUNTS), {}))


def test_the_agents_own_files_are_no_place_for_a_volume() -> None:
    """Two packages that cannot import each other know the same ones."""
    assert {hostfiles.HOSTNAME, hostfiles.HOSTS, hostfiles.RESOLV_CONF} <= set(rules.TAKEN)


@bounded(10)
async def test_folders_are_everybodys_in_a_place_of_nobody(tmp_path: Path) -> None:
    """Whoever a container runs as may write to them; users of the node reach neither them nor a setuid file."""
    disk = FileDisk(Layout(tmp_path))
    folder = Path(await disk.make_volumes(TASK, ["work", "tools"]))
    assert modes(folder) == {"work": 0o777, "tools": 0o777}
    assert modes(folder.parent)["volumes"] == modes(tmp_path)["tasks"] == 0o700


@bounded(10)
async def test_folders_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    """What is in them, and what their containers have made of their modes."""
    disk = FileDisk(Layout(tmp_path))
    folder = Path(await disk.make_volumes(TASK, ["work"]))
    written = folder / "work/file"
    written.write_text("kept")
    written.parent.chmod(0o700)
    await FileDisk(Layout(tmp_path)).make_volumes(TASK, ["work"])
    assert (written.read_text(), modes(folder)) == ("kept", {"work": 0o700})


@bounded(10)
async def test_an_agent_that_was_killed_while_it_made_one_leaves_nothing_half(tmp_path: Path) -> None:
    """The next one makes it whole."""
    layout = Layout(tmp_path)
    disk = FileDisk(layout)
    (layout.volumes(TASK) / "work.new").mkdir(mode=0o700, parents=True)
    folder = Path(await disk.make_volumes(TASK, ["work"]))
    assert modes(folder) == {"work": 0o777}


@bounded(30)
async def test_nothing_but_the_folders_is_removed(tmp_path: Path) -> None:
    """Links in them are not followed, however deep they are; and twice is as good as once."""
    layout = Layout(tmp_path / "state")
    disk = FileDisk(layout)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    work = Path(await disk.make_volumes(TASK, ["work"]), "work")
    nest(work, 1500)
    (work / "d/link").symlink_to(tmp_path / "kept")
    await disk.remove_volumes(TASK)
    await disk.remove_volumes(TASK)
    assert not layout.volumes(TASK).exists()
    assert (tmp_path / "kept/file").exists()


@bounded(10)
async def test_a_disk_that_takes_no_folder_is_told(tmp_path: Path) -> None:
    """The folder, and why."""
    layout = Layout(tmp_path)
    disk = FileDisk(layout)
    layout.task(TASK).mkdir()
    layout.volumes(TASK).touch()
    with pytest.raises(Temporary, match=r"cannot make volumes in .*/web-1-a/volumes: (File exists|Not a directory)"):
        await disk.make_volumes(TASK, ["work"])


@bounded(3600, virtual_time=True)
async def test_volumes_last_as_long_as_their_task() -> None:
    """Over restarts in place and over the agent's death, and not longer: a task that has ended is still known then."""
    machine = machine_with_image()
    made = template("/web")
    made.volumes.add(name="work")
    made.container.mounts.add(volume="work", path="/srv")
    async with alive(machine) as agent:
        agent.complete(task(TASK), made=made)
        await agent.reach(TASK, states.RUNNING)
        (source,) = (
            mount["source"]
            for mount in machine.containers[TASK].request.config["mounts"]
            if mount["destination"] == "/srv"
        )
        assert source == f"/volumes/{TASK}/work"
        machine.volumes.add((TASK, "written by it"))
        machine.crash(TASK, 1)
        await agent.until(lambda: machine.starts[TASK] == 2)
    async with alive(machine) as agent:
        agent.complete(task(TASK), made=made)
        await agent.until(lambda: TASK in machine.running())
        assert machine.volumes == {(TASK, "work"), (TASK, "written by it")}
        agent.complete(task(TASK, desired=SHUTDOWN), made=made)
        await agent.reach(TASK, states.SHUTDOWN)
        await agent.until(lambda: not machine.volumes)
        assert list(machine.records) == [TASK]

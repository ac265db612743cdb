"""Volumes through a real agent: shared by the containers of a task, kept while it lives, and gone with it."""

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from images.store import ImageStore
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.agent.conftest import Node, led
from tests.support.aio import bounded, until
from tests.support.fake_leader import FakeLeader, task, template

pytestmark = pytest.mark.root

TASK = "web-1-a"
SHUTDOWN, REMOVE = pb.DESIRED_STATE_SHUTDOWN, pb.DESIRED_STATE_REMOVE
FETCH = "stat -c 'empty %u:%g %a %h' /work; ls -A /work; echo fetched > /work/page; mkdir /work/own; ln -s / /work/root"
WRITE = "touch /here/by-2000; while sleep 0.05; do :; done"
SHOW = """\
until test -e /srv/by-2000; do sleep 0.05; done
cat /srv/page; stat -c '%u:%g %n' /srv/page /srv/by-2000; touch /srv/mine 2>&1; echo "${PLACE:-none}"
exec sleep 1000
"""
COUNT = "echo started >> /srv/starts; exec sleep 1000"


def shell(name: str, script: str, place: str, user: str = "", *, read_only: bool = False) -> pb.Container:
    """A container with the volume `work` at a place."""
    made = pb.Container(name=name, image="hello:1", command=["sh", "-c", script], user=user)
    made.mounts.add(volume="work", path=place, read_only=read_only)
    return made


def of(
    main: pb.Container, *, init: Sequence[pb.Container] = (), sidecars: Sequence[pb.Container] = ()
) -> pb.TaskTemplate:
    """A task of these containers with the volume `work`."""
    made = template("/", init=init, sidecars=sidecars)
    made.container.CopyFrom(main)
    made.volumes.add(name="work")
    made.stop_grace_period = 100
    return made


def volume(node: Node, task_id: str = TASK) -> Path:
    """Where the node has it."""
    return node.state / "tasks" / task_id / "volumes/work"


def log(node: Node, container: str = "") -> list[str]:
    """What a container of the task has said."""
    folder = node.state / "tasks" / TASK
    path = folder / "containers" / container / "log" if container else folder / "log"
    return [re.sub(rb"^.*? (?:stdout|stderr) \S+ ", b"", line).decode() for line in path.read_bytes().splitlines()]


def owners(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Whose the files are, in the node's own ids."""
    return {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in folder.iterdir()}


async def started(node: Node, times: int, task_id: str = TASK) -> None:
    """The main container has written down so many starts."""
    starts = volume(node, task_id) / "starts"
    said = "started\n" * times
    await until(lambda: starts.exists() and starts.read_text() == said, what=f"{times} starts are told", timeout_s=10)


async def restarted(leader: FakeLeader, node: Node, times: int) -> None:
    """Kill the main container once it has said so, and wait until it runs again."""
    await started(node, times)
    os.kill(node.containers()[TASK], signal.SIGKILL)
    await leader.until(TASK, lambda now: now.restarts == times and now.ready, what="it runs again")


@pytest.mark.parametrize("users", [pb.USER_NAMESPACE_AUTO, pb.USER_NAMESPACE_HOST], ids=["own", "host"])
@bounded(60)
async def test_the_containers_of_a_task_share_a_folder(
    node: Node, store: ImageStore, users: pb.UserNamespace.ValueType
) -> None:
    """Empty at first and writable for whoever they run as; each sees the others' files with the ids that those have;
    and who may only read, may only read.
    """
    main = shell("", SHOW, "/srv", "1000:1000", read_only=True)
    main.userns = users
    made = of(main, init=[shell("fetch", FETCH, "/work")], sidecars=[shell("writer", WRITE, "/here", "2000:2000")])
    async with led(node, store) as leader:
        await leader.assign(task(TASK), template=made)
        await leader.running(TASK)
        await until(lambda: "none" in log(node), what="it has looked at everything")
        assert log(node, "fetch") == ["empty 0:0 777 2"]
        assert log(node) == [
            "fetched",
            "0:0 /srv/page",
            "2000:2000 /srv/by-2000",
            "touch: /srv/mine: Read-only file system",
            "none",
        ]
        assert owners(volume(node)) == {"page": (0, 0), "own": (0, 0), "root": (0, 0), "by-2000": (2000, 2000)}
        assert volume(node).parent.stat().st_mode & 0o777 == 0o700


@bounded(60)
async def test_it_is_kept_over_restarts_and_over_the_agents_death(node: Node, store: ImageStore) -> None:
    """In place, by the agent that made it and by the next one; and the layer of the container is not."""
    async with led(node, store) as leader:
        await leader.assign(task(TASK), template=of(shell("", f"echo layer >> /layer; {COUNT}; ", "/srv")))
        await leader.running(TASK)
        await restarted(leader, node, 1)
        before, registered = volume(node).stat().st_ino, len(leader.registered)
        node.kill(signal.SIGKILL)
        node.start(leader.address)
        await until(lambda: len(leader.registered) > registered, what="it registers again", timeout_s=15)
        await restarted(leader, node, 2)
        await started(node, 3)
        assert volume(node).stat().st_ino == before
        assert (node.state / "tasks" / TASK / "upper/layer").read_text() == "layer\n"


@bounded(60)
async def test_each_task_has_its_own_and_it_goes_with_the_task(node: Node, store: ImageStore) -> None:
    """When the task has ended, although it is still known; and what its links lead to stays."""
    other = "web-2-a"
    async with led(node, store) as leader:
        precious = node.folder / "precious"
        precious.mkdir()
        (precious / "file").touch()
        script = f"ln -s {precious} /srv/link; mkdir -p /srv/a/b; ln -s {precious}/file /srv/a/b/link; {COUNT}"
        await leader.assign(task(TASK), task(other), template=of(shell("", script, "/srv")))
        for name in (TASK, other):
            await leader.running(name)
            await started(node, 1, name)
        await leader.assign(task(TASK, desired=SHUTDOWN))
        await leader.until(TASK, lambda now: now.state == states.SHUTDOWN, what="it is shut down")
        await until(lambda: not volume(node).parent.exists(), what="its volumes are removed")
        assert (node.state / "tasks" / TASK / "record.json").exists()
        assert (precious / "file").exists()
        await started(node, 1, other)
        await leader.assign(task(TASK, desired=REMOVE), task(other, desired=REMOVE))
        await until(lambda: list((node.state / "tasks").iterdir()) == [], what="nothing is left")


@bounded(60)
async def test_folders_in_memory_and_volumes_lie_in_one_another(node: Node, store: ImageStore) -> None:
    """The places are made in what is above: a volume's in the folder in memory, and the other way round; and those of
    the agent's own files in a volume that hides what the image has around them.
    """
    script = "echo a > /srv/inner/a; echo b > /memory/work/b; ls -R /srv; cat /etc/hostname; exec sleep 1000"
    main = shell("", script, "/srv")
    main.mounts.add(volume="etc", path="/etc")
    main.mounts.add(volume="work", path="/memory/work")
    main.tmpfs["/srv/inner"].SetInParent()
    main.tmpfs["/memory"].SetInParent()
    made = of(main)
    made.volumes.add(name="etc")
    async with led(node, store) as leader:
        await leader.assign(task(TASK), template=made)
        await leader.running(TASK)
        await until(lambda: log(node) == ["/srv:", "b", "inner", "", "/srv/inner:", "a", TASK], what="it has looked")
        assert sorted(owners(volume(node))) == ["b", "inner"]
        assert owners(volume(node) / "inner") == {}

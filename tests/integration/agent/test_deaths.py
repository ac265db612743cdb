"""An agent that is killed again and again, at moments that nobody chose."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from images.store import ImageStore
from protos.orch.v1 import objects_pb2 as pb
from runtime import cgroups
from runtime.seccomp import cache
from tests.integration.agent.conftest import Node, led
from tests.support.aio import bounded, until
from tests.support.fake_leader import task, template

pytestmark = pytest.mark.root


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@bounded(90)
async def test_killed_at_any_moment(node: Node, store: ImageStore, seed: int) -> None:
    """However often it dies while it starts and stops tasks: in the end each runs once, with an address of its own,
    those that ran all the time were never touched, and after the last removal nothing is left, of volumes neither.
    """
    chance = random.Random(seed)
    async with led(node, store) as leader:
        made = template("sh", "-c", "mkdir -p /work/a/b/c; date >> /work/a/b/c/d; exec sleep 1000")
        made.volumes.add(name="work")
        made.container.mounts.add(volume="work", path="/work")
        made.stop_grace_period = 50
        await leader.assign(task("steady-1-a"), template=made)
        await leader.running("steady-1-a")
        pid = node.containers()["steady-1-a"]
        old = [f"old-{number}-x" for number in range(8)]
        await leader.assign(*(task(name) for name in old))
        new: list[str] = []
        for death in range(8):
            registered = len(leader.registered)
            await asyncio.sleep(chance.random() * 0.5)
            node.kill(signal.SIGKILL)
            new.append(f"new-{death}-x")
            await leader.assign(task(new[-1]))
            if old:
                await leader.remove(old.pop())
            node.start(leader.address)
            await until(lambda n=registered: len(leader.registered) > n, what="it registers again", timeout_s=15)  # type: ignore[misc]
        names = {"steady-1-a", *old, *new}
        await until(lambda: names <= running_in(leader.statuses), what="all run", timeout_s=30)
        await until(lambda: set(node.containers()) == names, what="nothing else runs", timeout_s=15)
        assert node.containers()["steady-1-a"] == pid
        assert len({leader.statuses[name].address for name in names}) == len(names)
        await until(lambda: node.run("ip", "link").count("orch-") == len(names), what="one link each", timeout_s=15)
        await leader.remove(*names)
        await until(lambda: node.containers() == {}, what="everything is stopped", timeout_s=20)
        await until(lambda: leftovers(node) == [], what="nothing is left", timeout_s=10)


def running_in(statuses: dict[str, pb.TaskStatus]) -> set[str]:
    return {name for name, status in statuses.items() if status.ready}


def leftovers(node: Node) -> list[str]:
    """Whatever a task may leave behind. The programs of system call filters stay: they are no task's."""
    found = [str(path) for path in [*(node.state / "tasks").iterdir(), *(node.state / "run").iterdir()]]
    found.remove(str(node.state / "run" / cache.FOLDER))
    found += [line for line in node.run("ip", "link").splitlines() if "orch-" in line]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(node.state) in line]
    for folder in cgroups.existing(cgroups.current_layout(), node.parent).folders:
        found += [str(path) for path in Path(folder).iterdir() if path.is_dir()]
    return found

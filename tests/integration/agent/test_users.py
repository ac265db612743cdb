"""Whose users the containers of a real agent have: root inside is nobody on the node, and no two have the same."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core import users
from agent.core.users import SIZE, Ids
from images.store import ImageStore
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.agent.conftest import REPOSITORY, Node, led
from tests.integration.agent.test_streams import execute, result_of
from tests.support.aio import bounded, until
from tests.support.fake_leader import task, template

pytestmark = pytest.mark.root

REMOVE = pb.DESIRED_STATE_REMOVE
IDS = Ids.parse(users.DEFAULT)
FEW = Ids(first=IDS.first + (1 << 24), count=2 * SIZE)


def sleeper(script: str = ":", **fields: object) -> pb.TaskTemplate:
    """A container that does something, says so, and waits."""
    made = template("sh", "-c", f"{script}; echo done; exec sleep 1000")
    made.container.MergeFrom(pb.Container(**fields))  # type: ignore[arg-type]
    made.stop_grace_period = 50
    return made


def identity(pid: int) -> tuple[int, int]:
    """The node's ids of a process."""
    rows = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    (uid,), (gid,) = set(rows["Uid"].split()), set(rows["Gid"].split())
    return int(uid), int(gid)


def mapped(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/uid_map").read_text().split()


def namespaces(pid: int) -> list[int]:
    """Of its users and its network."""
    return [Path(f"/proc/{pid}/ns/{kind}").stat().st_ino for kind in ("user", "net")]


def log_of(node: Node, name: str) -> str:
    return (node.state / "tasks" / name / "log").read_text()


def said_to(uid: int, folder: Path, *argv: str) -> str:
    """What a program says to a user of the node in a folder, whether it succeeds or not."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    ended = subprocess.run([*become, *argv], cwd=folder, capture_output=True, text=True, check=False, timeout=10)
    return ended.stdout + ended.stderr


def pinned(node: Node) -> list[str]:
    """What is mounted below its state."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(node.state) in line]


async def done(node: Node, name: str) -> int:
    """Wait until the script has been done; the container's pid."""
    await until(lambda: " done\n" in log_of(node, name), what=f"{name} has done it")
    return node.containers()[name]


@bounded(60)
async def test_root_of_a_container_is_nobody_on_the_node(node: Node, store: ImageStore) -> None:
    """Its processes, the files that it makes and a program that it makes setuid: all are of its range, and reported."""
    script = "touch /file; cp /bin/busybox /su; chmod 4755 /su; (cat /proc/1/environ > /dev/null)"
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=sleeper(script))
        status = await leader.running("web-1-a")
        pid = await done(node, "web-1-a")
        assert status.root_id == IDS.first
        assert identity(pid) == (IDS.first, IDS.first)
        assert mapped(pid) == ["0", str(IDS.first), str(SIZE)]
        root = Path(f"/proc/{pid}/root")
        assert {(root / name).stat().st_uid for name in ("file", "su")} == {IDS.first}
        assert stat.S_IMODE((root / "su").stat().st_mode) == 0o4755
        frames, _ = await execute(leader, "web-1-a", "sh", "-c", "id -u; cat /proc/self/uid_map")
        assert (await result_of(frames))[0].split() == ["0", "0", str(IDS.first), str(SIZE)]


@bounded(60)
async def test_the_nodes_folders_are_closed(node: Node, store: ImageStore) -> None:
    """On disk a container's files have the ids that it sees, root's setuid programs included: so nobody but the node's
    root gets there, neither a user of the node nor what a container's root is on it; whoever made the folders.
    """
    (node.state / "tasks").mkdir(parents=True, mode=0o755)
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=sleeper("cp /bin/busybox /su; chmod 4755 /su"))
        await leader.running("web-1-a")
        await done(node, "web-1-a")
        made = (node.state / "tasks/web-1-a/upper/su").stat()
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (0, 0o4755)
        for folder in (node.state, *(node.state / name for name in ("tasks", "images", "run"))):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
            for uid in (1000, IDS.first):
                assert "Permission denied" in said_to(uid, folder, "/bin/ls", "."), (folder, uid)


@bounded(60)
async def test_no_two_containers_have_the_same_users(node: Node, store: ImageStore) -> None:
    """Nor can one signal, trace or read what is the other's by its ids."""
    async with led(node, store) as leader:
        names = [f"web-{number}-x" for number in range(4)]
        await leader.assign(*(task(name) for name in names), template=sleeper())
        found = [(await leader.running(name)).root_id for name in names]
        pids = [node.containers()[name] for name in names]
        assert len(set(found)) == len(names)
        assert [mapped(pid)[1] for pid in pids] == [str(first) for first in found]
        assert all((first - IDS.first) % SIZE == 0 for first in found)


@bounded(60)
async def test_a_container_that_is_started_again_has_the_same_users(node: Node, store: ImageStore) -> None:
    """And the same network, which belongs to them."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=sleeper())
        await leader.running("web-1-a")
        before = node.containers()["web-1-a"]
        there = namespaces(before)
        os.kill(before, signal.SIGKILL)
        status = await leader.until("web-1-a", lambda now: now.restarts == 1 and now.ready, what="it runs again")
        assert status.root_id == IDS.first
        after = node.containers()["web-1-a"]
        assert (after != before, namespaces(after)) == (True, there)


@bounded(90)
async def test_an_agent_that_was_killed_knows_what_is_in_use(node: Node, store: ImageStore) -> None:
    """From the disk: also when the record of a task is lost, its container's configuration tells. What is freed after
    that is free, and everything is unpinned.
    """
    node.options = ["--ids", str(FEW)]
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), task("web-2-b"), template=sleeper())
        first = {(await leader.running(name)).root_id for name in ("web-1-a", "web-2-b")}
        assert first == {FEW.first, FEW.first + SIZE}
        node.kill(signal.SIGKILL)
        (node.state / "tasks/web-2-b/record.json").unlink()
        node.start(leader.address)
        await until(lambda: len(leader.registered) == 2, what="it registers again", timeout_s=15)
        await leader.assign(task("web-3-c"))
        waiting = await leader.until("web-3-c", lambda now: now.reason == "NoUsers", what="it waits for users")
        assert "task web-3-c: all 2 ranges of user ids of this node" in waiting.message
        freed = leader.statuses["web-2-b"].root_id
        await leader.assign(task("web-2-b", desired=REMOVE))
        assert (await leader.running("web-3-c")).root_id == freed
        await leader.assign(*(task(name, desired=REMOVE) for name in ("web-1-a", "web-3-c")))
        await until(lambda: not list((node.state / "tasks").iterdir()), what="everything is removed", timeout_s=15)
        assert not pinned(node)


@bounded(60)
async def test_who_asks_for_the_nodes_users(node: Node, store: ImageStore) -> None:
    """Gets them, takes no range, and is told apart; the host's network namespace is not theirs either."""
    async with led(node, store) as leader:
        await leader.assign(task("host-1-a"), template=sleeper(userns=pb.USER_NAMESPACE_HOST))
        status = await leader.running("host-1-a")
        assert (status.HasField("root_id"), status.root_id) == (True, 0)
        pid = node.containers()["host-1-a"]
        assert mapped(pid) == mapped(os.getpid())
        assert identity(pid) == (0, 0)
        assert not (node.state / "tasks/host-1-a/userns").exists()


@bounded(60)
async def test_ordinary_users_may_ping(node: Node, store: ImageStore) -> None:
    """Those whose group the manifest names, in the container's ids, although the parameter is set from outside."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=sleeper(sysctls={"net.ipv4.ping_group_range": "1001 1002"}))
        await leader.running("web-1-a")
        argv = ["nsenter", "-t", str(node.containers()["web-1-a"]), "-U", "-n", "-S", "1000"]
        script = "import socket; print(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).proto)"
        assert said_to(0, node.folder, *argv, "-G", "1002", "python3", "-c", script) == "1\n"
        assert "Permission denied" in said_to(0, node.folder, *argv, "-G", "1003", "python3", "-c", script)


@pytest.fixture
def poor(node: Node) -> Node:
    """A node whose tasks are on a file system that cannot be idmapped."""
    (node.state / "tasks").mkdir(parents=True)
    subprocess.run(["mount", "-t", "ramfs", "ramfs", node.state / "tasks"], check=True)
    return node


@bounded(60)
async def test_a_node_that_cannot(poor: Node, store: ImageStore) -> None:
    """Says so to its leader and in its log; what did not insist runs with the node's users, what did is refused."""
    try:
        async with led(poor, store) as leader:
            description = leader.registered[0].description
            assert f"{poor.state}/tasks/.probe cannot be idmapped: its file system" in description.no_users
            assert "containers get the users of this node" in poor.log()
            await leader.assign(task("web-1-a"), template=sleeper())
            assert (await leader.running("web-1-a")).root_id == 0
            insisting = pb.Revision(meta=pb.Meta(id="r2"), template=sleeper(userns=pb.USER_NAMESPACE_AUTO))
            await leader.assign(task("web-2-b", revision="r2"), template=insisting.template)
            status = await leader.until("web-2-b", lambda now: states.is_terminal(now.state), what="it is refused")
            assert (status.state, status.reason) == (states.REJECTED, "NoUsers")
            assert "task web-2-b: container.userns: this node can give it no users of its own" in status.message
            assert "write `userns: host`" in status.message
    finally:
        poor.close()
        said_to(0, poor.folder, "umount", "--lazy", str(poor.state / "tasks"))


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [("5:65536", "must be multiples of 65536"), ("0x10:1", "must be FIRST:COUNT, such as 1879048192:268304384")],
)
def test_ids_that_are_none(node: Node, ids: str, complaint: str) -> None:
    """End the agent with what is wrong."""
    node.options = ["--ids", ids]
    node.start("unix:/nobody")
    assert node.agent is not None
    assert node.agent.wait(10) == 2
    assert complaint in node.log()


def test_ids_that_somebody_has(tmp_path: Path) -> None:
    """Likewise, with whose they are: containers must not be among the users of the machine."""
    (tmp_path / "passwd").write_text("root:x:0:0::/:/bin/sh\nsomebody:x:1100000:1::/:/bin/sh\n")
    agent = f"{sys.executable} -m agent --name n1 --server unix:/x --address 192.0.2.1 --state {tmp_path / 'state'}"
    script = f"mount --bind {tmp_path / 'passwd'} /etc/passwd && exec {agent} --ids 1048576:65536"
    argv = ["unshare", "--mount", "sh", "-ec", script]
    ended = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode == 1
    assert "--ids 1048576:65536: /etc/passwd:2 gives 1100000 to somebody; choose others" in ended.stderr

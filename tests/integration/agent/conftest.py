"""Real agents as processes, each in a network namespace of its own, under a leader that the test plays."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from images.image import Config
from images.rootfs import Entry, File, Symlink, build_image
from images.store import ImageStore
from runtime import cgroups, client
from tests.support.aio import until
from tests.support.fake_leader import FakeLeader
from tests.support.netlab import IPV4, Lab, LabNode

REPOSITORY = Path(__file__).parents[3]
BUSYBOX = Path("/bin/busybox")
PARENT = f"/orch/test-agent-{os.getpid()}"  # two runs of the suite may go on at once
WEB = """\
#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "$ORCH_TASK on $ORCH_NODE at $ORCH_ADDRESS"
"""


class Node:
    """A machine as an agent sees it: a network namespace, a state folder, and a cgroup."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.state = folder / "state"
        self.namespace = folder / "net"
        self.address = "127.0.0.1"
        self.parent = f"{PARENT}/{folder.parent.name}-{name}"
        self.agent: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []
        folder.mkdir()
        self.namespace.touch()
        subprocess.run(["unshare", f"--net={self.namespace}", "ip", "link", "set", "lo", "up"], check=True)

    def start(self, server: str) -> int:
        """Start the agent; returns its pid."""
        command = [sys.executable, "-m", "agent", "--name", self.name, "--server", server, "--log-level", "debug"]
        command += ["--address", self.address, "--state", str(self.state), "--cgroup-parent", self.parent]
        command += self.options
        with (self.folder / "agent.log").open("ab") as output:
            self.agent = subprocess.Popen(
                ["nsenter", f"--net={self.namespace}", *command], cwd=REPOSITORY, stdout=output, stderr=output
            )
        return self.agent.pid

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End the agent; returns its exit code."""
        assert self.agent is not None, "not started"
        self.agent.send_signal(number)
        code = self.agent.wait(timeout=10)
        self.agent = None
        return code

    def run(self, *command: str) -> str:
        """What a command in the node's network says."""
        argv = ["nsenter", f"--net={self.namespace}", *command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
        return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stderr}"

    async def get(self, url: str) -> str:
        """What a web server answers, as seen from the node; waits until it does."""
        answers: list[str] = []

        def answered() -> bool:
            answers.append(self.run("curl", "-s", "--max-time", "2", url))
            return not answers[-1].startswith("exit")

        await until(answered, what=f"{url} answers", timeout_s=10, every_s=0.05)
        return answers[-1]

    def containers(self) -> dict[str, int]:
        """The pids of the containers that run."""
        return {
            entry.id: entry.pid
            for entry in client.list_containers(str(self.state / "run"))
            if entry.status == "running"
        }

    def log(self) -> str:
        """What the agent has logged."""
        return (self.folder / "agent.log").read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Its lines about an event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def close(self) -> None:
        """Take everything down, whatever state it is in."""
        if self.agent is not None:
            self.kill()
        for entry in client.list_containers(str(self.state / "run")):
            client.delete(str(self.state / "run"), entry.id, force=True)
        for pin in [*self.state.glob("tasks/*/netns"), *self.state.glob("tasks/*/userns"), self.namespace]:
            subprocess.run(["umount", "--lazy", pin], check=False, capture_output=True)
        cgroups.existing(cgroups.current_layout(), self.parent).delete()
        for folder in cgroups.existing(cgroups.current_layout(), PARENT).folders:
            with contextlib.suppress(OSError):  # another test's groups are still in it
                Path(folder).rmdir()


def link(one: Node, other: Node) -> None:
    """A cable between two nodes."""
    one.address, other.address = "192.0.2.1", "192.0.2.2"
    with other.namespace.open() as peer:
        fd = peer.fileno()
        script = f"ip link add cable type veth peer name cable netns /proc/self/fd/{fd} && ip link set cable up"
        script += f" && ip addr add {one.address}/24 dev cable"
        argv = ["nsenter", f"--net={one.namespace}", "sh", "-ec", script]
        subprocess.run(argv, check=True, pass_fds=[fd])
    other.run("sh", "-ec", f"ip addr add {other.address}/24 dev cable && ip link set cable up")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """The cluster's images: `hello:1`, busybox with a web server as its command."""
    assert BUSYBOX.exists(), "apt-get install busybox-static"
    made = ImageStore(tmp_path_factory.mktemp("images"))
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries: list[Entry] = [File(path="bin/busybox", content=BUSYBOX, mode=0o755)]
    entries += [Symlink(path=f"bin/{applet}", target="busybox") for applet in sorted(set(applets) - {"busybox"})]
    entries += [File(path="www/cgi-bin/index", content=WEB.encode(), mode=0o755)]
    config = Config(cmd=("httpd", "-f", "-p", "80", "-h", "/www"), env=("PATH=/bin",))
    build_image(made, entries, config, "hello:1")
    return made


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Two nodes whose agents are not started yet."""
    made = [Node(name, tmp_path / name) for name in ("n1", "n2")]
    try:
        yield made
    finally:
        for node in made:
            node.close()
        shutil.rmtree(tmp_path / "n1", ignore_errors=True)


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    """One of them."""
    return nodes[0]


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Two nodes with the agent's network, and a machine outside."""
    with structlog.testing.capture_logs() as logged:
        made = Lab(tmp_path, getattr(request, "param", IPV4))
        try:
            yield made
        finally:
            made.close()
    assert not [line for line in logged if "was refused" in line["event"]], "nft takes every change as it is"


@pytest.fixture
def one(lab: Lab) -> LabNode:
    """The first of them."""
    return lab.nodes[0]


@pytest.fixture
def two(lab: Lab) -> LabNode:
    """The second."""
    return lab.nodes[1]


@contextlib.asynccontextmanager
async def led(node: Node, store: ImageStore) -> AsyncIterator[FakeLeader]:
    """The node with its agent running, and its leader."""
    leader = FakeLeader(store)
    address = await leader.start(node.folder / "leader.sock")
    node.start(address)
    try:
        await until(lambda: bool(leader.registered), what="the agent registers", timeout_s=10)
        yield leader
    except BaseException:
        print(node.log()[-8000:])
        raise
    finally:
        await leader.stop()


async def gone(pid: int) -> None:
    """Wait for the end of any process."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            ended = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(fd, lambda: ended.done() or ended.set_result(None))
            await asyncio.wait_for(ended, 10)
        finally:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

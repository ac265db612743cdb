"""Names in real containers: through their own files, by two C libraries, from the agent of their node."""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from images.store import ImageStore
from protos import states
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from runtime import syscalls
from tests.integration.agent.conftest import Node, led
from tests.integration.agent.test_isolation import said
from tests.support import rootfs, waiting
from tests.support.aio import bounded, until
from tests.support.fake_leader import FakeLeader, task, template

pytestmark = pytest.mark.root

GATEWAY = "10.112.1.1"
DNSMASQ = "/usr/sbin/dnsmasq"
UPSTREAM = ("--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user=root", "--pid-file")
UPSTREAM += ("--listen-address=127.0.0.53", "--bind-interfaces", "--host-record=www.example.com,192.0.2.80")
UPSTREAM += ("--cname=alias.example.com,www.example.com", "--local=/example.com/", "--local=/corp.example/")


def service(name: str, *addresses: str, namespace: str = "default", address: str = "") -> dpb.NetworkService:
    return dpb.NetworkService(
        id=f"{namespace}-{name}",
        namespace=namespace,
        name=name,
        address=address,
        endpoints=[
            dpb.Endpoint(task_id=f"{name}-{slot}-a", slot=slot, address=each, ready=True)
            for slot, each in enumerate(addresses, 1)
        ],
    )


SERVICES = (
    service("web", "10.112.1.8", "10.112.2.9", address="10.112.200.7"),
    service("db", "10.112.1.20", "10.112.2.21"),
    service("web", address="10.112.200.8", namespace="shop"),
)


def sleeper(**more: object) -> pb.TaskTemplate:
    """A container that does nothing."""
    made = template("sleep", "3600", **more)
    made.stop_grace_period = 100
    return made


class Inside:
    """A container, for those who look into it."""

    def __init__(self, node: Node, name: str) -> None:
        self.files = node.state / "tasks" / name / "files"
        self._pid = str(node.containers()[name])

    def run(self, *command: str) -> str:
        """What a program of its image says, as its root."""
        return _said("nsenter", "--target", self._pid, "--all", "/bin/busybox", *command)

    def getent(self, *words: str) -> str:
        """What this machine's C library says with the container's network and files."""
        binds = " && ".join(f"mount --bind {self.files}/{name} /etc/{name}" for name in ("hosts", "resolv.conf"))
        inside = ["nsenter", "--target", self._pid, "--net", "unshare", "--mount", "sh", "-c"]
        return _said(*inside, f'{binds} && exec getent "$@"', "getent", *words)

    def addresses(self, name: str) -> set[str]:
        """Those that the C library finds for a name."""
        return {line.split()[0] for line in self.getent("ahostsv4", name).splitlines() if "STREAM" in line}


def _said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout if done.returncode == 0 else f"exit {done.returncode}: {done.stdout}{done.stderr}"


async def started(leader: FakeLeader, node: Node, name: str = "web-1-a", **more: object) -> Inside:
    """A container of this name runs."""
    await leader.announce_services(*SERVICES)
    await leader.assign(task(name), template=sleeper(**more))
    await leader.running(name)
    return Inside(node, name)


@pytest.fixture
def upstream(node: Node, tmp_path: Path) -> Iterator[None]:
    """A name server on the node's loopback, as many machines have one, and a file that names it."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.53\nsearch corp.example\n")
    node.options += ["--resolv-conf", str(conf)]
    command = ["nsenter", f"--net={node.namespace}", DNSMASQ, *UPSTREAM]
    with subprocess.Popen(command) as server:
        try:
            waiting.until(lambda: "127.0.0.53:53" in node.run("ss", "-ln"), what="dnsmasq listens")
            yield
        finally:
            server.kill()


@pytest.mark.usefixtures("upstream")
@bounded(60)
async def test_the_c_library_finds_everything(node: Node, store: ImageStore) -> None:
    """Short names, long names, names with a dot, names of the outside world, and addresses."""
    async with led(node, store) as leader:
        inside = await started(leader, node)
        for name in ("web", "web.default", "web.default.orch", "WEB.default.orch."):
            assert inside.addresses(name) == {"10.112.200.7"}, name
        assert inside.addresses("tasks.web") == {"10.112.1.8", "10.112.2.9"}
        assert inside.addresses("db") == {"10.112.1.20", "10.112.2.21"}
        assert inside.addresses("db-2.db") == {"10.112.2.21"}
        assert inside.addresses("web.shop") == inside.addresses("web.shop.orch") == {"10.112.200.8"}
        assert inside.addresses("www.example.com") == inside.addresses("alias.example.com") == {"192.0.2.80"}
        assert inside.getent("ahosts", "nosuch.example.com").startswith("exit 2")
        assert inside.getent("hosts", "10.112.2.21").split() == ["10.112.2.21", "db-2.db.default.orch"]
        assert inside.getent("ahosts", "nosuch.default.orch").startswith("exit 2"), "not found, and not later"


@pytest.mark.usefixtures("upstream")
@bounded(60)
async def test_an_internal_task_asks_nobody_outside(node: Node, store: ImageStore) -> None:
    """And the cluster's names are there."""
    async with led(node, store) as leader:
        inside = await started(leader, node)
        assert inside.addresses("www.example.com") == {"192.0.2.80"}
        closed = service("web", "10.112.1.8", address="10.112.200.7")
        closed.internal = True
        await leader.announce_services(closed)
        await until(lambda: inside.addresses("www.example.com") == set(), what="there is nothing outside")
        assert inside.addresses("web") == {"10.112.200.7"}


@bounded(60)
async def test_busybox_finds_everything(node: Node, store: ImageStore) -> None:
    """In the container itself, as its root; also its own name, in its own file."""
    async with led(node, store) as leader:
        inside = await started(leader, node)
        assert "10.112.200.7" in inside.run("nslookup", "web.default.orch")
        assert "10.112.2.21" in inside.run("nslookup", "db-2.db.default.orch")
        assert "NXDOMAIN" in inside.run("nslookup", "nosuch.default.orch")
        assert "SERVFAIL" in inside.run("nslookup", "www.example.com"), "this node has nobody to ask"
        assert inside.run("hostname").strip() == "web-1-a"
        assert inside.run("hostname", "-f").strip() == "web-1.web.default.orch"
        assert inside.run("cat", "/etc/hostname") == "web-1-a\n"
        address = leader.statuses["web-1-a"].address
        assert f"{address} web-1.web.default.orch web-1-a web-1\n" in inside.run("cat", "/etc/hosts")
        lines = inside.run("cat", "/etc/resolv.conf").splitlines()
        assert lines[0] == f"nameserver {GATEWAY}"
        assert lines[1].startswith("search default.orch orch")


@bounded(60)
async def test_changes_are_seen_at_once(node: Node, store: ImageStore) -> None:
    """A service that comes, one that changes, and all of them after the agent was killed, without a leader."""
    async with led(node, store) as leader:
        inside = await started(leader, node)
        await leader.announce_services(service("new", address="10.112.200.9"))
        await until(lambda: inside.addresses("new") == {"10.112.200.9"}, what="the new one is found")
        await leader.announce_services(service("db", "10.112.2.22"))
        await until(lambda: inside.addresses("db") == {"10.112.2.22"}, what="the change is seen")
        await leader.assign(task("web-2-b"), template=sleeper())
        await leader.running("web-2-b")
        await leader.stop()
        node.kill()
        asked = asyncio.ensure_future(asyncio.to_thread(inside.addresses, "db"))
        node.start(leader.address)
        assert await asked == {"10.112.2.22"}, "it was asked while nobody answered, and again"
        assert inside.addresses("new") == {"10.112.200.9"}


@bounded(60)
async def test_a_container_s_files_are_its_own(node: Node, store: ImageStore) -> None:
    """Its root may change them; no other container sees that, nor the next one of the same task."""
    async with led(node, store) as leader:
        inside = await started(leader, node)
        other = await started(leader, node, "web-2-b")
        assert inside.run("sh", "-c", "echo 192.0.2.1 mine >> /etc/hosts") == ""
        assert "mine" in inside.run("cat", "/etc/hosts")
        assert "mine" not in other.run("cat", "/etc/hosts")
        for name in ("hosts", "hostname", "resolv.conf"):
            status = (inside.files / name).stat()
            assert (status.st_mode & 0o777, status.st_uid) == (0o644, status.st_gid)
            assert status.st_uid >= 65536, "root of the container, and nobody here"
        os.kill(node.containers()["web-1-a"], 9)
        await leader.until("web-1-a", lambda now: now.restarts == 1 and now.ready, what="it runs again")
        assert "mine" not in Inside(node, "web-1-a").run("cat", "/etc/hosts")
        await leader.assign(task("web-1-a", desired=pb.DESIRED_STATE_REMOVE))
        await leader.until("web-1-a", lambda now: now.state == states.SHUTDOWN, what="it is shut down")
        await until(lambda: not inside.files.exists(), what="its files are removed")


@bounded(60)
async def test_other_kinds_of_containers(node: Node, store: ImageStore) -> None:
    """With a root file system that cannot be written, with the node's users, and with a name of their own."""
    async with led(node, store) as leader:
        await leader.announce_services(*SERVICES)
        firm, plain = sleeper(), sleeper()
        firm.container.read_only_rootfs = True
        firm.container.hostname = "db.example.com"
        plain.container.userns = pb.USER_NAMESPACE_HOST
        await leader.assign(task("firm-1-a", revision="r2"), template=firm)
        await leader.assign(task("plain-1-a", revision="r3"), template=plain)
        for name in ("firm-1-a", "plain-1-a"):
            await leader.running(name)
            assert "10.112.200.7" in Inside(node, name).run("nslookup", "web.default.orch")
        inside = Inside(node, "firm-1-a")
        assert inside.run("sh", "-c", "echo x >> /etc/hosts").startswith("exit")
        assert inside.run("cat", "/etc/hostname") == "db.example.com\n"
        assert inside.run("hostname").strip() == "db.example.com"
        assert " db.example.com db " in inside.run("cat", "/etc/hosts")
        status = (Inside(node, "plain-1-a").files / "hosts").stat()
        assert (status.st_uid, status.st_gid) == (0, 0)


@bounded(40)
async def test_what_the_image_has_is_covered(tmp_path: Path) -> None:
    """Files and links, also such as lead nowhere; the image stays as it is."""
    layer = rootfs.busybox(tmp_path / "root")
    (layer / "etc/hosts").write_text("from the image\n")
    (layer / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    output = await said(layer, tmp_path, "cat /etc/resolv.conf /etc/hosts /etc/hostname")
    assert "search default.orch orch" in output
    assert "127.0.0.1 localhost" in output
    assert "from the image" not in output
    assert output.splitlines()[-1] == "a", "its name"
    assert (layer / "etc/hosts").read_text() == "from the image\n"
    assert not (layer / "run").exists()


@bounded(60)
async def test_a_port_that_is_taken_holds_tasks_back(node: Node, store: ImageStore) -> None:
    """The reason is told with the task; when the port is free, it starts."""
    with ExitStack() as stack:
        taken = stack.enter_context(_socket_in(node.namespace))
        taken.bind(("0.0.0.0", 53))
        async with led(node, store) as leader:
            await leader.assign(task("web-1-a"), template=sleeper())
            status = await leader.until("web-1-a", lambda now: "port 53" in now.message, what="it says why it waits")
            assert "end whoever else listens on port 53" in status.message
            taken.close()
            await leader.running("web-1-a")


def _socket_in(namespace: Path) -> socket.socket:
    """A UDP socket belongs to the network namespace that its maker was in."""
    made: list[socket.socket] = []

    def make() -> None:
        with namespace.open() as there:
            syscalls.setns(there.fileno(), syscalls.CLONE_NEWNET)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]

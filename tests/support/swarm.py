"""Docker Swarm as a peer: a daemon of its own, in namespaces of its own, that leaves nothing behind.

It is asked over its HTTP interface, so that no command line's start-up is measured.
"""

import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy import hello
from deploy.local import processes, sweep
from tests.support.waiting import until

CGROUP = "/orch/bench-swarm"
BRIDGE = "swarm"
PORT = 2377
START_TIMEOUT_S = 60
_VERSION = "v1.41"


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


class Swarm:
    """A daemon, and what it is asked; services only of one that is a manager."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._socket = folder / "docker.sock"
        self._process = process

    def ask(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> Any:
        """The answer, from JSON. AssertionError with the daemon's words when it refuses."""
        text = self.told(method, path, body, raw=raw)
        return json.loads(text) if text.startswith((b"{", b"[")) else text

    def told(self, method: str, path: str, body: Any = None, *, raw: bytes | None = None) -> bytes:
        """The answer as it comes, such as the lines of progress of a pull."""
        connection = Connection(self._socket)
        try:
            kind = "application/x-tar" if raw is not None else "application/json"
            content = raw if raw is not None else json.dumps(body) if body is not None else None
            connection.request(method, f"/{_VERSION}{path}", content, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {text.decode(errors='replace')}"
        return text

    def create(self, name: str, replicas: int, image: str = "hello") -> None:
        """A service on the host's network, which is Swarm's fastest."""
        self.ask("POST", "/services/create", service(name, replicas, image))

    def scale(self, name: str, replicas: int, image: str = "hello") -> None:
        version = self.ask("GET", f"/services/{name}")["Version"]["Index"]
        self.ask("POST", f"/services/{name}/update?version={version}", service(name, replicas, image))

    def delete(self, name: str) -> None:
        """Returns when its containers have gone, those that have only ended included: removing them is work."""
        self.ask("DELETE", f"/services/{name}")
        self.await_empty()

    def await_empty(self) -> None:
        """Returns when the daemon has no container."""
        until(lambda: not self.ask("GET", "/containers/json?all=1"), what="the containers are gone", timeout_s=120)

    def running(self, name: str) -> Sequence[str]:
        """The containers of the service's running tasks."""
        return [task["Status"]["ContainerStatus"]["ContainerID"] for task in self._running_tasks(name)]

    def homes(self, name: str) -> Counter[str]:
        """How many of the service's tasks run on each node, by its id."""
        return Counter(task["NodeID"] for task in self._running_tasks(name))

    def _running_tasks(self, name: str) -> list[Any]:
        wanted = json.dumps({"service": [name], "desired-state": ["running"]})
        tasks = self.ask("GET", f"/tasks?filters={wanted}".replace('"', "%22").replace(" ", ""))
        return [task for task in tasks if task["Status"]["State"] == "running"]

    def set_availability(self, node_id: str, availability: str) -> None:
        """Of a node: `active`, or `drain`."""
        known = self.ask("GET", f"/nodes/{node_id}")
        version, spec = known["Version"]["Index"], {**known["Spec"], "Availability": availability}
        self.ask("POST", f"/nodes/{node_id}/update?version={version}", spec)

    @property
    def node_id(self) -> str:
        """Its own."""
        found: str = self.ask("GET", "/info")["Swarm"]["NodeID"]
        return found

    def await_running(self, name: str, replicas: int) -> Sequence[str]:
        return until(
            lambda: found if len(found := self.running(name)) >= replicas else None,
            what=f"swarm runs {replicas} of {name}",
            timeout_s=120,
            every_s=0.005,
        )

    def container_pid(self, container: str) -> int:
        pid: int = self.ask("GET", f"/containers/{container}/json")["State"]["Pid"]
        return pid

    @property
    def daemon_pid(self) -> int:
        """The child of unshare(1)."""
        return processes.children(self._process.pid)[0]

    def kill(self) -> None:
        """Its machine is gone, as it were: no process of it is left."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=30)


def service(name: str, replicas: int, image: str) -> dict[str, Any]:
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "Command": ["/bin/sleep", "100000"], "StopGracePeriod": 0},
            "Networks": [{"Target": "host"}],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


def available() -> bool:
    """Whether Docker's daemon is installed."""
    return shutil.which("dockerd") is not None


@contextlib.contextmanager
def running(*, bridge: bool = False) -> Iterator[Swarm]:
    """A swarm with the image `hello`, and with Docker's bridge for published ports when that is asked for."""
    with _swept(), _daemon(bridge=bridge) as swarm:
        swarm.ask("POST", "/swarm/init", {"ListenAddr": f"127.0.0.1:{PORT}", "AdvertiseAddr": "127.0.0.1"})
        yield swarm


class Fleet:
    """A manager with workers, each a machine of its own as far as Docker can tell, on a bridge between them."""

    def __init__(self, manager: Swarm, stack: contextlib.ExitStack) -> None:
        self.manager = manager
        self.workers: list[Swarm] = []
        self._stack = stack
        self._numbers = itertools.count(2)
        _ip(manager, "link", "add", BRIDGE, "type", "bridge")
        _ip(manager, "address", "add", f"{_address(1)}/24", "dev", BRIDGE)
        _ip(manager, "link", "set", BRIDGE, "up")
        manager.ask("POST", "/swarm/init", {"ListenAddr": f"{_address(1)}:{PORT}", "AdvertiseAddr": _address(1)})

    def add_worker(self) -> Swarm:
        """Another machine, which has joined."""
        number = next(self._numbers)
        worker = self._stack.enter_context(_daemon())
        _ip(self.manager, "link", "add", f"w{number}", "type", "veth", "peer", "eth0", "netns", str(worker.daemon_pid))
        _ip(self.manager, "link", "set", f"w{number}", "up", "master", BRIDGE)
        _ip(worker, "address", "add", f"{_address(number)}/24", "dev", "eth0")
        _ip(worker, "link", "set", "eth0", "up")
        joining = {
            "ListenAddr": f"{_address(number)}:{PORT}",
            "AdvertiseAddr": _address(number),
            "RemoteAddrs": [f"{_address(1)}:{PORT}"],
            "JoinToken": self.manager.ask("GET", "/swarm")["JoinTokens"]["Worker"],
        }
        worker.ask("POST", "/swarm/join", joining)
        self.workers.append(worker)
        return worker

    def forget(self, node_id: str) -> None:
        """A machine does not come back."""
        self.manager.ask("DELETE", f"/nodes/{node_id}?force=true")


@contextlib.contextmanager
def fleet(workers: int) -> Iterator[Fleet]:
    """A swarm of several nodes with the image `hello`."""
    with _swept(), contextlib.ExitStack() as stack:
        made = Fleet(stack.enter_context(_daemon()), stack)
        for _ in range(workers):
            made.add_worker()
        yield made


def _address(number: int) -> str:
    return f"10.255.77.{number}"


def _ip(of: Swarm, *words: str) -> None:
    """ip(8), in the network of a daemon."""
    subprocess.run(["nsenter", f"--net=/proc/{of.daemon_pid}/ns/net", "ip", *words], check=True)


@contextlib.contextmanager
def _swept() -> Iterator[None]:
    try:
        yield
    finally:
        sweep.remove_cgroups(CGROUP)


@contextlib.contextmanager
def _daemon(*, bridge: bool = False) -> Iterator[Swarm]:
    """One that has the image and belongs to no swarm yet."""
    with tempfile.TemporaryDirectory(prefix="orch-swarm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        process = _start(folder, bridge=bridge)
        swarm = Swarm(folder, process)
        try:
            until(lambda: _answers(swarm, process, folder), what="dockerd answers", timeout_s=START_TIMEOUT_S)
            hello.write(folder / "hello.tar")
            swarm.ask("POST", "/images/create?fromSrc=-&repo=hello", raw=(folder / "hello.tar").read_bytes())
            yield swarm
        finally:
            swarm.kill()


def _start(folder: Path, *, bridge: bool) -> subprocess.Popen[bytes]:
    # Its links, rules, mounts and containers are inside namespaces that end with process 1.
    inside = (
        f"ip link set lo up; exec dockerd --config-file {folder}/daemon.json "
        f"--data-root {folder}/data --exec-root {folder}/exec --pidfile {folder}/pid "
        f"--host unix://{folder}/docker.sock --cgroup-parent {CGROUP} {'' if bridge else '--bridge none'}"
    )
    unshare = ["unshare", "--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    (folder / "daemon.json").write_text("{}")
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([*unshare, "sh", "-c", inside], stdout=log, stderr=log)


def _answers(swarm: Swarm, process: subprocess.Popen[bytes], folder: Path) -> bool:
    ended = process.poll() is not None
    assert not ended, f"dockerd did not start:\n{(folder / 'log').read_text()[-3000:]}"
    if not os.access(folder / "docker.sock", os.F_OK):
        return False
    with contextlib.suppress(OSError):
        return bool(swarm.ask("GET", "/_ping"))
    return False

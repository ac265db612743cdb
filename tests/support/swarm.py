"""Docker Swarm as a peer: a daemon of its own, in namespaces of its own, that leaves nothing behind.

It is asked over its HTTP interface, so that no command line's start-up is measured.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy import hello
from deploy.local import processes, sweep
from tests.support.waiting import until

CGROUP = "/orch/bench-swarm"
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
    """One node that is its own manager."""

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
        until(lambda: not self.ask("GET", "/containers/json?all=1"), what="the containers are gone", timeout_s=120)

    def running(self, name: str) -> Sequence[str]:
        """The containers of the service's running tasks."""
        wanted = json.dumps({"service": [name], "desired-state": ["running"]})
        tasks = self.ask("GET", f"/tasks?filters={wanted}".replace('"', "%22").replace(" ", ""))
        return [
            task["Status"]["ContainerStatus"]["ContainerID"] for task in tasks if task["Status"]["State"] == "running"
        ]

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
    with tempfile.TemporaryDirectory(prefix="orch-swarm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        process = _start(folder, bridge=bridge)
        try:
            swarm = Swarm(folder, process)
            until(lambda: _answers(swarm, process, folder), what="dockerd answers", timeout_s=START_TIMEOUT_S)
            hello.write(folder / "hello.tar")
            swarm.ask("POST", "/images/create?fromSrc=-&repo=hello", raw=(folder / "hello.tar").read_bytes())
            swarm.ask("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
            yield swarm
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(timeout=30)
            sweep.remove_cgroups(CGROUP)


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

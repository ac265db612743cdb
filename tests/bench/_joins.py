"""Joins, one after the other, on a machine that has nothing of ours: `python -m tests.bench._joins FOLDER`.

For each line of its input, `node`, `command` or `certificate`, it writes how many seconds one took, and how many the
processors worked for it beside the control plane. It and everything that it starts live in namespaces of their own for
networks, mounts and processes, where /etc/orch, /var/lib and /run are empty; whoever starts it makes those
(`NAMESPACES`), and they end with it.
"""

import itertools
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from protos.orch.v1 import control_pb2, control_pb2_grpc, objects_pb2
from runtime import cgroups
from tests.support import founded
from tests.support.waiting import until
from trust import credentials, joining
from trust.core.identity import Role
from trust.folder import Folder

NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
HERE = "127.0.0.1"
OURS = tuple(Path(path) for path in ("/etc/orch", "/var/lib/orch", "/run/orch"))
PARENT = f"/orch/bench-join-{time.monotonic_ns()}"
TIMEOUT_S = 60


def main() -> None:
    """Until the input ends."""
    folder = Path(sys.argv[1])
    _empty(folder)
    numbers = itertools.count(1)
    with founded.running(folder) as cluster, _stub(cluster) as stub:
        for line in sys.stdin:
            name = f"n{next(numbers)}"
            match line.strip():
                case "node":
                    took = _node(cluster, stub, name)
                case "command":
                    took = _command(cluster, name)
                case _:
                    took = _certificate(cluster, folder / name)
            print(*took, flush=True)


def _empty(folder: Path) -> None:
    """This machine's own network, and nothing of ours on it."""
    (folder / "etc").mkdir()
    _run("ip", "link", "set", "lo", "up")
    _run("mount", "-t", "tmpfs", "tmpfs", str(folder / "etc"))
    for name in ("upper", "work"):
        (folder / "etc" / name).mkdir()
    layers = f"lowerdir=/etc,upperdir={folder}/etc/upper,workdir={folder}/etc/work"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, "/etc")
    for empty in ("/var/lib", "/run"):
        _run("mount", "-t", "tmpfs", "tmpfs", empty)


def _certificate(cluster: founded.Founded, folder: Path) -> tuple[float, float]:
    """What a join gets by the door, without a program's start."""
    token = cluster.token("--role=node")
    wish = joining.Wish(name=folder.name, node_name=folder.name)
    began, before_s = time.perf_counter(), _worked_s()
    joining.join(cluster.control.door, token, wish, Folder(folder))
    return time.perf_counter() - began, _worked_s() - before_s


def _node(cluster: founded.Founded, stub: "control_pb2_grpc.ControlStub", name: str) -> tuple[float, float]:
    """The command, and the agent's start, as systemd goes about it, until it has its session."""
    took_s, worked_s = _command(cluster, name)
    began = time.perf_counter()
    with _agent() as agent:
        until(lambda: _is_ready(stub, name), what=f"{name} has its session", timeout_s=TIMEOUT_S, every_s=0.01)
        return took_s + time.perf_counter() - began, worked_s + agent.worked_s()


def _command(cluster: founded.Founded, name: str) -> tuple[float, float]:
    """As the guide has it, where there is nothing of ours."""
    for path in OURS:
        shutil.rmtree(path, ignore_errors=True)
    token = cluster.token("--role=node")
    server, door = f"--server={cluster.control.address}", f"--door={cluster.control.door}"
    command = ("-m", "orchctl", "node", "join", f"--token={token}", server, door, f"--name={name}", f"--address={HERE}")
    began, before_s = time.perf_counter(), _worked_s()
    _run(sys.executable, *command)
    return time.perf_counter() - began, _worked_s() - before_s


@contextmanager
def _agent() -> Iterator["_Agent"]:
    """As the unit starts it; with control groups of its own, since those are this kernel's."""
    command = [sys.executable, "-m", "agent", "--config", "/etc/orch/agent.yaml", f"--cgroup-parent={PARENT}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield _Agent(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
        cgroups.existing(cgroups.current_layout(), PARENT).delete()


class _Agent:
    """The process, as the kernel counts what it has worked (proc(5))."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")

    def worked_s(self) -> float:
        """It, and those of its children that have ended."""
        counted = self._stat.read_text().rpartition(")")[2].split()[11:15]
        return sum(map(int, counted)) / os.sysconf("SC_CLK_TCK")


def _worked_s() -> float:
    """This process, and those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _is_ready(stub: "control_pb2_grpc.ControlStub", name: str) -> bool:
    listed = stub.List(control_pb2.ListRequest(kind="node"), timeout=TIMEOUT_S).objects
    ready = objects_pb2.NODE_STATE_READY
    return any(one.node.meta.name == name and one.node.status.state == ready for one in listed)


@contextmanager
def _stub(cluster: founded.Founded) -> Iterator["control_pb2_grpc.ControlStub"]:
    own = Folder(cluster.folder / "trust" / "home").load(Role.ADMIN)
    options = credentials.CHANNEL_OPTIONS
    with grpc.secure_channel(cluster.control.address, credentials.channel(own), options=options) as channel:
        yield control_pb2_grpc.ControlStub(channel)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    socket.setdefaulttimeout(TIMEOUT_S)
    main()

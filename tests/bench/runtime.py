"""The runtime beside crun, runc and Docker: a container's whole life, a further process in it, many at once.

Everybody runs the same configuration: all namespaces, a cgroup, the default capabilities, masks, and Docker's seccomp
profile, which people run with. Ours also mounts the overlay of its root in the measured time; the peers' is ready.
"""

import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.local import sweep
from runtime import client, defaults, protocol, syscalls
from tests.bench.measure import Case
from tests.support import rootfs, swarm

ROUNDS = 50
SLOW_ROUNDS = 10
MANY, AT_ONCE = 200, 8
CGROUP = f"/orch/bench-{os.getpid()}"
TRUE = ["/bin/true"]
LONG = ["/bin/sleep", "100000"]


@contextlib.contextmanager
def cases() -> Iterator[Sequence[Case]]:
    """Everything is on a tmpfs, so that no disk is measured."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orch-bench-", dir="/dev/shm")))
        image = rootfs.busybox(folder / "image")
        stack.callback(sweep.remove_cgroups, CGROUP)
        stack.enter_context(_without_hybrid_cgroups())
        ours = stack.enter_context(Ours.running(folder, image))
        peers = {name: stack.enter_context(Peer.ready(name, folder, image)) for name in _installed("crun", "runc")}
        docker = stack.enter_context(swarm.running()) if swarm.available() else None
        yield [
            *_lives(ours, peers, docker),
            Case(
                name="runtime.exec",
                unit="ms",
                ours=ours.execute,
                peer=peers["crun"].execute if "crun" in peers else None,
                peer_name="crun exec",
                rounds=ROUNDS,
                ratio_mark=1,
            ),
            Case(
                name=f"runtime.{MANY}_long_running_each",
                unit="ms",
                ours=ours.many,
                peer=peers["crun"].many if "crun" in peers else None,
                peer_name="crun run --detach",
                rounds=3,
                mark=1000 / 150,
            ),
            Case(
                name="runtime.monitor_memory",
                unit="MB",
                ours=ours.monitor_memory_mb,
                peer=None,
                peer_name="containerd's shim takes 2.4",
                rounds=1,
                mark=2,
            ),
        ]


def _lives(ours: "Ours", peers: "dict[str, Peer]", docker: swarm.Swarm | None) -> list[Case]:
    """Create, start, exit and delete; a missing peer has its row, too."""
    contenders: list[tuple[str, Callable[[], float] | None, float, int]] = [
        ("crun", peers["crun"].life if "crun" in peers else None, 1 / 3, ROUNDS),
        ("runc", peers["runc"].life if "runc" in peers else None, 1 / 5, ROUNDS),
        ("crun without a filter", peers["crun"].life_without_filter if "crun" in peers else None, 1, ROUNDS),
        ("docker's API", (lambda: docker_life(docker)) if docker else None, 1 / 5, SLOW_ROUNDS),
    ]
    return [
        Case(
            name="runtime.create_start_exit",
            unit="ms",
            ours=ours.life,
            peer=measured,
            peer_name=name,
            rounds=rounds,
            ratio_mark=mark,
        )
        for name, measured, mark, rounds in contenders
    ]


def docker_life(docker: swarm.Swarm) -> float:
    """The engine's interface, without its command line; a container without a network."""
    wanted = {"Image": "hello", "Entrypoint": TRUE, "HostConfig": {"NetworkMode": "none"}}
    with _milliseconds() as spent:
        container = docker.ask("POST", "/containers/create", wanted)["Id"]
        docker.ask("POST", f"/containers/{container}/start")
        docker.ask("POST", f"/containers/{container}/wait")
        docker.ask("DELETE", f"/containers/{container}")
    return spent[0]


class Ours:
    """The launcher and its monitors."""

    def __init__(self, launcher: client.Launcher, folder: Path, image: Path) -> None:
        self._launcher = launcher
        self._root = str(folder / "ours")
        self._folder = folder
        self._image = image
        self._numbers = itertools.count()
        self._memory_mb = 0.0
        self._held: client.Monitor | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path, image: Path) -> "Iterator[Ours]":
        with client.Launcher.spawn(str(folder / "ours")) as launcher:
            ours = cls(launcher, folder, image)
            try:
                yield ours
            finally:
                for container in client.list_containers(ours._root):
                    client.delete(ours._root, container.id, force=True)

    def life(self) -> float:
        """One container from its creation to its removal."""
        with _milliseconds() as spent:
            name = self._create(TRUE)
            with contextlib.suppress(client.errors.PeerGone), client.adopt(self._root, name) as monitor:
                monitor.wait(10)
            client.delete(self._root, name, force=True)
        return spent[0]

    def execute(self) -> float:
        """One process in a running container."""
        if self._held is None:
            self._held = client.adopt(self._root, self._create(LONG))
        with _milliseconds() as spent:
            number, _, _ = self._held.execute({"args": TRUE})
            assert self._held.wait_exec(number, 10) == 0
        return spent[0]

    def many(self) -> float:
        """Milliseconds for each of many containers that stay, some at a time."""
        names = [f"m{next(self._numbers)}" for _ in range(MANY)]
        requests = [self._request(name, LONG) for name in names]
        connection = self._launcher.socket
        with _milliseconds() as spent:
            for number, request in enumerate(requests):
                if number >= AT_ONCE:
                    self._await_reply()
                protocol.send(connection, {"id": 1_000_000 + number, "verb": "create", **request})
            for _ in range(AT_ONCE):
                self._await_reply()
        self._memory_mb = statistics.mean(
            _pss_mb(state.monitor_pid) for state in client.list_containers(self._root) if state.id in names
        )
        for name in names:
            client.delete(self._root, name, force=True)
        return spent[0] / MANY

    def monitor_memory_mb(self) -> float:
        """What one of many monitors takes, shared pages counted once."""
        return self._memory_mb

    def _await_reply(self) -> None:
        self._launcher.socket.settimeout(30)
        message = protocol.receive(self._launcher.socket)
        assert message is not None, "the launcher has ended"
        protocol.result(message.body)

    def _create(self, args: Sequence[str]) -> str:
        name = f"c{next(self._numbers)}"
        request = self._request(name, args)
        self._launcher.create(name, request["config"], overlay=request["overlay"])
        return name

    def _request(self, name: str, args: Sequence[str]) -> dict[str, Any]:
        folders = {kind: self._folder / "ours-layers" / name / kind for kind in ("upper", "work")}
        for path in folders.values():
            path.mkdir(parents=True)
        return {
            "container": name,
            "config": defaults.config(args, cgroups_path=f"{CGROUP}/{name}", hostname=name),
            "overlay": {"lower": [str(self._image)], **{kind: str(path) for kind, path in folders.items()}},
            "start": True,
        }


class Peer:
    """A runtime's command line over bundles with the same configuration."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._numbers = itertools.count()
        self._held = ""

    @classmethod
    @contextlib.contextmanager
    def ready(cls, name: str, folder: Path, image: Path) -> "Iterator[Peer]":
        peer = cls(name, folder / name)
        with peer._mounted(image):
            try:
                yield peer
            finally:
                if peer._held:
                    peer._run("delete", "--force", peer._held)

    def life(self) -> float:
        """One container from its creation to its removal."""
        return self._life(filtered=True)

    def life_without_filter(self) -> float:
        """Without seccomp, whose compilation is most of its time."""
        return self._life(filtered=False)

    def execute(self) -> float:
        """One process in a running container."""
        if not self._held:
            self._held = self._bundle(LONG)
            self._run("run", "--detach", "--bundle", str(self._folder / self._held), self._held)
        with _milliseconds() as spent:
            self._run("exec", self._held, *TRUE)
        return spent[0]

    def many(self) -> float:
        """Milliseconds for each of many containers that stay, some at a time."""
        names = [self._bundle(LONG) for _ in range(MANY)]
        waiting = list(names)
        with _milliseconds() as spent:
            started: list[subprocess.Popen[bytes]] = []
            while waiting or started:
                while waiting and len(started) < AT_ONCE:
                    name = waiting.pop()
                    command = self._command("run", "--detach", "--bundle", str(self._folder / name), name)
                    started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
                assert started.pop(0).wait(30) == 0
        for name in names:
            self._run("delete", "--force", name)
        return spent[0] / MANY

    def _life(self, *, filtered: bool) -> float:
        name = self._bundle(TRUE, filtered=filtered)
        with _milliseconds() as spent:
            self._run("run", "--bundle", str(self._folder / name), name)
        return spent[0]

    def _command(self, *arguments: str) -> list[str]:
        return [self._name, "--root", str(self._folder / "state"), *arguments]

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            self._command(*arguments),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    def _bundle(self, args: Sequence[str], *, filtered: bool = True) -> str:
        """A bundle over the one root, named as its container will be."""
        name = f"{self._name}{next(self._numbers)}"
        config = defaults.config(args, cgroups_path=f"{CGROUP}/{name}", hostname=name)
        config["ociVersion"] = "1.0.2"  # the newest that Debian's peers know
        config["root"] = {"path": str(self._folder / "rootfs")}
        if not filtered:
            config["linux"].pop("seccomp", None)
        (self._folder / name).mkdir()
        (self._folder / name / "config.json").write_text(json.dumps(config))
        return name

    @contextlib.contextmanager
    def _mounted(self, image: Path) -> Iterator[None]:
        """The root of all bundles."""
        for kind in ("upper", "work", "rootfs"):
            (self._folder / kind).mkdir(parents=True)
        options = f"lowerdir={image},upperdir={self._folder}/upper,workdir={self._folder}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self._folder / "rootfs"], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", self._folder / "rootfs"], check=True)


@contextlib.contextmanager
def _milliseconds() -> Iterator[list[float]]:
    """A list that holds, after the block, how long it took."""
    spent: list[float] = []
    began = time.perf_counter()
    yield spent
    spent.append((time.perf_counter() - began) * 1000)


def _installed(*names: str) -> list[str]:
    missing = [name for name in names if shutil.which(name) is None]
    for name in missing:
        print(f"bench: no {name} on PATH: ours alone (apt-get install {name})", file=sys.stderr)
    return [name for name in names if name not in missing]


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


@contextlib.contextmanager
def _without_hybrid_cgroups() -> Iterator[None]:
    """Hide version 2 where version 1 holds the controllers: crun refuses such a hybrid. For this thread alone."""
    unified = Path("/sys/fs/cgroup/unified")
    if not unified.exists():
        yield
        return
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    try:
        syscalls.set_propagation("/", syscalls.MS_REC | syscalls.MS_PRIVATE)
        subprocess.run(["mount", "-t", "tmpfs", "none", unified], check=True)
        yield
    finally:
        syscalls.setns(before, syscalls.CLONE_NEWNS)
        os.close(before)

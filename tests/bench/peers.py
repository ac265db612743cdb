"""The peers of the runtime's benchmark, and our own command line: each is called as people call it."""

import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from runtime import defaults, syscalls
from tests.support import swarm

CGROUP = f"/orch/bench-{os.getpid()}"
TRUE = ["/bin/true"]
LONG = ["/bin/sleep", "100000"]
MANY, AT_ONCE = 200, 8


def docker_life(docker: swarm.Swarm) -> float:
    """The engine's interface, without its command line; a container without a network."""
    wanted = {"Image": "hello", "Entrypoint": TRUE, "HostConfig": {"NetworkMode": "none"}}
    with milliseconds() as spent:
        container = docker.ask("POST", "/containers/create", wanted)["Id"]
        docker.ask("POST", f"/containers/{container}/start")
        docker.ask("POST", f"/containers/{container}/wait")
        docker.ask("DELETE", f"/containers/{container}")
    return spent[0]


def install(folder: Path) -> str:
    """Our command, as people install it; its path."""
    script = Path(__file__).parents[2] / "deploy/install-runtime.sh"
    subprocess.run([script, folder / "prefix"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    return str(folder / "prefix/bin/orchrun")


def call(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Execute a command to its successful end."""
    await_success(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment))


def await_success(process: "subprocess.Popen[bytes]") -> None:
    """Without `Popen.wait(timeout)`, which looks seldom: after 31.5 ms, and then after 63.5."""
    pidfd = os.pidfd_open(process.pid)
    try:
        assert select.select([pidfd], [], [], 60)[0], f"{process.args} does not end"
    finally:
        os.close(pidfd)
    assert process.wait() == 0, process.args


class Peer:
    """A runtime's command line over bundles with the same configuration."""

    def __init__(self, name: str, folder: Path) -> None:
        self._program = name
        self._name = Path(name).name
        self._folder = folder
        self._numbers = itertools.count()
        self._held = ""

    @classmethod
    @contextlib.contextmanager
    def ready(cls, name: str, folder: Path, image: Path) -> "Iterator[Peer]":
        peer = cls(name, folder / Path(name).name)
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
        with milliseconds() as spent:
            self._run("exec", self._held, *TRUE)
        return spent[0]

    def many(self) -> float:
        """Milliseconds for each of many containers that stay, some at a time."""
        names = [self._bundle(LONG) for _ in range(MANY)]
        waiting = list(names)
        with milliseconds() as spent:
            started: list[subprocess.Popen[bytes]] = []
            while waiting or started:
                while waiting and len(started) < AT_ONCE:
                    name = waiting.pop()
                    command = self._command("run", "--detach", "--bundle", str(self._folder / name), name)
                    started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
                await_success(started.pop(0))
        for name in names:
            self._run("delete", "--force", name)
        return spent[0] / MANY

    def _life(self, *, filtered: bool) -> float:
        name = self._bundle(TRUE, filtered=filtered)
        with milliseconds() as spent:
            self._run("run", "--bundle", str(self._folder / name), name)
        return spent[0]

    def _command(self, *arguments: str) -> list[str]:
        return [self._program, "--root", str(self._folder / "state"), *arguments]

    def _run(self, *arguments: str) -> None:
        call(self._command(*arguments))

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


class Podman:
    """podman's command line, with its own runtime over a root that is ready, and without a network."""

    def __init__(self, folder: Path, image: Path) -> None:
        (folder / "podman").mkdir()
        # Its limits of resources are above what every machine lets root ask for.
        limits = 'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]'
        (folder / "podman/containers.conf").write_text(f"[containers]\n{limits}\n[engine]\nevents_logger = 'none'\n")
        self._environment = {**os.environ, "CONTAINERS_CONF": str(folder / "podman/containers.conf")}
        places = [f"--{name}={folder / 'podman' / name}" for name in ("root", "runroot", "tmpdir")]
        self._command = ["podman", *places, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "run", "--rm"]
        self._command += ["--network=none", f"--cgroup-parent={CGROUP}", "--rootfs", str(image), *TRUE]

    def life(self) -> float:
        """One container from its creation to its removal."""
        with milliseconds() as spent:
            call(self._command, self._environment)
        return spent[0]


@contextlib.contextmanager
def milliseconds() -> Iterator[list[float]]:
    """A list that holds, after the block, how long it took."""
    spent: list[float] = []
    began = time.perf_counter()
    yield spent
    spent.append((time.perf_counter() - began) * 1000)


def installed(*names: str) -> list[str]:
    missing = [name for name in names if shutil.which(name) is None]
    for name in missing:
        print(f"bench: no {name} on PATH: ours alone (apt-get install {name})", file=sys.stderr)
    return [name for name in names if name not in missing]


@contextlib.contextmanager
def without_hybrid_cgroups() -> Iterator[None]:
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

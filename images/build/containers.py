"""The containers of one build: RUN's commands in our own runtime, with its defaults.

Rules. A command runs in namespaces of its own, with the default system call filter, the default capabilities and a
bound on processes; where the machine can, in a user namespace, so that its root is nobody here, while the files it
makes have the ids that it sees. Only the network is the machine's own unless the step says `--network=none`: a builder
has no network of containers to put them in. And whatever happens to the builder, its containers end (`keeper`).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from images import errors, scratch
from images.build import descriptors, keeper
from runtime import client, defaults, state, syscalls
from runtime import errors as runtime_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from images.store import ImageStore

FIRST_ID = 0x6FFF0000
"""The node's id of a build container's root: the 65,536 before those that the agent gives to tasks."""

HOSTNAME = "build"
_NETWORK_RIGHTS = frozenset({"CAP_NET_RAW", "CAP_NET_BIND_SERVICE"})
_IN_MEMORY = frozenset({0x01021994, 0x858458F6})  # tmpfs and ramfs, linux/magic.h
_PIPE_BYTES = 1 << 16
_KEEPER_END_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run: words, where and as whom. `mounts` are those of an OCI configuration."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str
    overlay: Mapping[str, Any]
    network: str = "default"
    mounts: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


class Stopped(errors.ImageError):
    """Another stage failed, or a person has had enough."""


class Containers:
    """Starts what it needs with the first command; use as a context manager, from any thread."""

    def __init__(self, store: ImageStore, area: Path, *, first_id: int = FIRST_ID) -> None:
        self._store = store
        self._area = area
        self._wanted_id = first_id
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._launcher: client.Launcher | None = None
        self._warming: threading.Thread | None = None
        self._folder = Path()
        self._running: set[str] = set()
        self._count = 0
        self._stopped = False
        self._first_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._warming is not None:
            self._warming.join()
        self._stack.close()

    @property
    def first_id(self) -> int:
        """The machine's id of the containers' root; 0 where they cannot have users of their own."""
        self._start()
        return self._first_id

    @property
    def files(self) -> Path:
        """Where files lie that containers are given: in memory, where the state is."""
        self._start()
        return self._folder / "files"

    def own(self, path: Path, *, uid: int = 0, gid: int = 0) -> None:
        """Give a file to a user of the containers."""
        os.chown(path, self._first_id + uid, self._first_id + gid)

    def run(self, order: Order, output: Callable[[bytes], None]) -> int:
        """Run a command to its end and return its exit code (128 and the signal, when one ended it).

        `output` gets what it writes, piece by piece. Raises `BuildFailed` when it cannot be started.
        """
        self._start()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            name = self._create(order, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            with os.fdopen(reading, "rb", buffering=0) as pipe:
                while data := pipe.read(_PIPE_BYTES):
                    output(data)
            return self._exit_code(name)
        finally:
            self._remove(name)

    def stop(self) -> None:
        """End every command; nothing is started any more."""
        with self._lock:
            self._stopped = True
            names = sorted(self._running)
        for name in names:
            with contextlib.suppress(runtime_errors.ContainerError):
                client.delete(self._root, name, force=True)

    # Inside -----------------------------------------------------------------------------------------------------------

    @property
    def _root(self) -> str:
        return str(self._folder / "run")

    def _create(self, order: Order, writing: int) -> str:
        with self._lock, Path(os.devnull).open("rb") as nothing:
            if self._stopped:
                raise Stopped("the build was stopped")
            assert self._launcher is not None, "started above"
            self._count += 1
            name = f"step-{self._count}"
            # One folder each, and none for the build: what nobody removes with a container would stay.
            config = configuration(order, f"/orch/build-{self._folder.name}-{name}", first_id=self._first_id)
            try:
                self._launcher.create(
                    name, config, overlay=dict(order.overlay), stdio=(nothing.fileno(), writing, writing)
                )
            except runtime_errors.ContainerError as error:
                with contextlib.suppress(runtime_errors.ContainerError):
                    client.delete(self._root, name, force=True)
                raise errors.BuildFailed(f"the command cannot be started: {error.message}") from error
            self._running.add(name)
            return name

    def _remove(self, name: str) -> None:
        with self._lock:
            self._running.discard(name)
        try:
            client.delete(self._root, name, force=True)
        except runtime_errors.ContainerError as error:
            raise errors.StorageFailed(f"what is left of the command cannot be removed: {error.message}") from error

    def _exit_code(self, name: str) -> int:
        with contextlib.suppress(runtime_errors.ContainerError), client.adopt(self._root, name) as monitor:
            return monitor.wait().exit_code
        ended = state.load_exit(self._root, name)
        if self._stopped:
            raise Stopped("the build was stopped")
        if ended is None:
            raise errors.ImageError("the command was ended together with its monitor; build again")
        return ended.exit_code

    def warm_up(self) -> None:
        """Begin to start what commands will need, and go on at once."""
        if self._launcher is None and self._warming is None:
            self._warming = threading.Thread(target=self._warm, name="containers")
            self._warming.start()

    def _warm(self) -> None:
        with contextlib.suppress(errors.ImageError, OSError):  # the first command meets it again, and tells
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._launcher is None:
                if self._stopped:
                    raise Stopped("the build was stopped")
                self._start_processes()

    def _start_processes(self) -> None:
        self._area.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(self._area)
        item = self._stack.enter_context(scratch.folder(self._area))
        self._folder = item.path
        for name in ("run", "files"):
            (item.path / name).mkdir(mode=0o711)
        item.path.chmod(0o711)
        launcher = client.Launcher.spawn(self._root)
        try:
            assert launcher.process is not None, "spawned here"
            self._first_id = self._start_keeper(item, launcher.process.pid)
        finally:
            # Ended before the keeper, which waits for it.
            self._stack.enter_context(launcher)
        self._launcher = launcher

    def _start_keeper(self, item: scratch.Item, launcher_pid: int) -> int:
        probe = self._stack.enter_context(scratch.folder(self._store.tmp))
        for name in ("layers", "own"):
            (probe.path / name).mkdir()
        reading, life = os.pipe2(os.O_CLOEXEC)
        launcher = os.pidfd_open(launcher_pid)
        arguments = [self._root, str(probe.path), str(self._wanted_id), str(reading), str(launcher)]
        try:
            process = subprocess.Popen(
                [sys.executable, "-S", "-m", keeper.__name__, *arguments],
                env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1", "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                pass_fds=(reading, launcher, item.fd),
                start_new_session=True,
            )
        except BaseException:
            os.close(life)
            raise
        finally:
            os.close(reading)
            os.close(launcher)
        self._stack.callback(process.wait, _KEEPER_END_S)
        self._stack.callback(os.close, life)
        assert process.stdout is not None, "piped"
        with process.stdout:
            return self._wanted_id if process.stdout.readline() == b"\n" else 0


def configuration(order: Order, cgroups_path: str, *, first_id: int) -> dict[str, Any]:
    """The OCI configuration of a command; without a first id its users are the machine's."""
    config = defaults.config(order.args, cgroups_path=cgroups_path, hostname=HOSTNAME)
    process, linux = config["process"], config["linux"]
    process["env"] = [f"{name}={value}" for name, value in order.env.items()]
    process["cwd"] = order.cwd
    # sudo and su are what Dockerfiles use; Docker allows it, too.
    process["noNewPrivileges"] = False
    if order.user:
        process["user"] = {"username": order.user}
    if order.network != "none":
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "network"]
        linux["sysctl"] = {}  # those of the defaults are the network's, which is the machine's here
        if not first_id:
            _drop_network_rights(process["capabilities"])
    if first_id:
        defaults.give_user_namespace(config, first_id=first_id)
    config["mounts"] = [*config["mounts"], *(dict(mount) for mount in order.mounts)]
    return config


def _drop_network_rights(capabilities: dict[str, list[str]]) -> None:
    """Without a user namespace these would be rights over the machine's own network: to listen in, and to forge."""
    for name, found in capabilities.items():
        capabilities[name] = [each for each in found if each not in _NETWORK_RIGHTS]


def is_in_memory(area: Path) -> bool:
    """Whether the state of builds, and with it the secrets of a running command, is kept from the disk."""
    area.mkdir(mode=0o700, parents=True, exist_ok=True)
    with descriptors.closing(os.open(area, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        return syscalls.fstatfs_type(fd) in _IN_MEMORY


def sweep(area: Path) -> None:
    """Remove what builds left that were killed together with their keepers: containers first, then the folders."""
    scratch.sweep(area, first=lambda path: keeper.remove_all(str(path / "run")))

"""The cgroup of one container: create, limit, enter, measure, kill, freeze, delete, on version 1, 2 or a hybrid.

What to write where is decided by `cgroups_v1` and `cgroups_v2`; this module only reads and writes. A cgroup is
named by its path from the root of the hierarchies, and by nothing else, so any process can pick it up.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from runtime import cgroups_v1, cgroups_v2, devicefilter, errors
from runtime.cgrouplayout import Layout, current_layout, find_layout
from runtime.resources import Resources

__all__ = ["Cgroup", "Layout", "Stats", "current_layout", "enter", "existing", "find_layout", "visible_folders"]

_KILL_ROUNDS: Final = 200
_KILL_PAUSE_S: Final = 0.005
_FREEZE_ROUNDS: Final = 400
_MAX_DEPTH: Final = 32
_SWAP_FILES: Final = frozenset({"memory.swap.max", "memory.memsw.limit_in_bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One measurement of a container. None: this machine does not tell."""

    cpu_usage_ns: int
    memory_bytes: int
    memory_limit_bytes: int | None
    memory_peak_bytes: int | None
    pids: int
    oom_kills: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """The group at `path`; the folders are those that `resources` need when it is created."""

    layout: Layout
    path: str
    folders: tuple[str, ...] = ()

    @classmethod
    def plan(cls, layout: Layout, path: str, resources: Resources) -> "Cgroup":
        """A group that is still to be created. Controllers that are mounted together share a folder."""
        if layout.is_v2:
            return cls(layout=layout, path=path, folders=(layout.unified + path,))
        found = (layout.folder(name, path) for name in cgroups_v1.controllers(resources))
        return cls(layout=layout, path=path, folders=tuple(dict.fromkeys(folder for folder in found if folder)))

    def create(self, resources: Resources) -> None:
        """Make the folders, or none. A folder that is left from before is taken over when nobody is in it."""
        made: list[str] = []
        try:
            for folder in self.folders:
                _make_folder(folder)
                made.append(folder)
            self._prepare(resources)
        except BaseException:
            for folder in made:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            raise

    def _prepare(self, resources: Resources) -> None:
        if self.layout.is_v2:
            self._enable_controllers(cgroups_v2.controllers(resources))
        elif resources.cpus or resources.mems:
            self._inherit_cpuset()

    def _enable_controllers(self, wanted: tuple[str, ...]) -> None:
        for ancestor in cgroups_v2.ancestors(self.path):
            folder = self.layout.unified + ancestor.rstrip("/")
            available, enabled = (_read(f"{folder}/cgroup.{name}") for name in ("controllers", "subtree_control"))
            words = cgroups_v2.subtree_control(available, enabled, wanted)
            if words:
                _enable(folder, words)

    def _inherit_cpuset(self) -> None:
        """Version 1 makes cpusets empty, and a group with an empty one cannot be entered or narrowed."""
        root = self.layout.folder("cpuset", "")
        above = root
        for name in self.path.strip("/").split("/"):
            folder = f"{above}/{name}"
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not _read(f"{folder}/{file}").strip():
                    _write(f"{folder}/{file}", _read(f"{above}/{file}").strip())
            above = folder

    def apply(self, resources: Resources) -> None:
        """Write the limits."""
        for file, value in self._settings(resources):
            if os.path.basename(file) in _SWAP_FILES and not os.path.exists(file) and not _has_swap():
                continue  # the kernel does not account for swap, and nothing can be swapped out
            _write(file, value)
        if self.layout.is_v2 and resources.devices:
            with errors.step(f"cgroup {self.path}: device rules"):
                devicefilter.attach(self.layout.unified + self.path, devicefilter.whole(resources.devices))

    def update(self, resources: Resources) -> None:
        """Change the limits that are given, of a group that is in use; its devices stay as they are.

        Memory with swap may never be below memory alone, so where one has to go up first, the order is turned round.
        """
        assert not resources.devices, "device rules are not changed"
        settings = list(self._settings(resources))
        for file, value in settings:
            try:
                _write(file, value)
            except errors.SetupFailed as error:
                higher = [other for other, _ in settings if other.endswith("memory.memsw.limit_in_bytes")]
                if error.errno != errno.EINVAL or not file.endswith("/memory.limit_in_bytes") or not higher:
                    raise
                _write(higher[0], dict(settings)[higher[0]])
                _write(file, value)

    def _settings(self, resources: Resources) -> Iterator[tuple[str, str]]:
        if self.layout.is_v2:
            folder = self.layout.unified + self.path
            available = _read(f"{folder}/cgroup.controllers").split()
            for name, value in cgroups_v2.settings(resources):
                controller = name.partition(".")[0]
                if controller not in available:
                    raise errors.SetupFailed(cgroups_v2.missing(name, self.path), step="cgroup limits")
                yield f"{folder}/{name}", value
            return
        for controller, name, value in cgroups_v1.settings(resources):
            folder = self.layout.folder(controller, self.path)
            if not folder:
                raise errors.SetupFailed(
                    f"cgroup: {name} cannot be set since the {controller} controller is not mounted",
                    step="cgroup limits",
                )
            yield f"{folder}/{name}", value

    def add(self, pid: int) -> None:
        """Move a process into the group."""
        for folder in self.folders:
            _write(f"{folder}/cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Descriptors by which a process enters (`enter`) that has no privileges of its own over the groups."""
        file = "cgroup.procs" if self.layout.is_v2 else "tasks"
        with errors.step(f"cgroup {self.path}"):
            return [os.open(f"{folder}/{file}", os.O_WRONLY | os.O_CLOEXEC) for folder in self.folders]

    def enter(self) -> None:
        """Move the caller, which must have one thread, into the group."""
        enter(self.doors())

    def pids(self) -> list[int]:
        """The processes of the group and of the groups below it."""
        found: set[int] = set()
        for folder in self.folders[:1]:
            for inner, _, _ in os.walk(folder):
                found.update(int(line) for line in _read(f"{inner}/cgroup.procs").split())
        return sorted(found)

    def stats(self) -> Stats:
        """Measure now. A group that is gone counts as zero everywhere."""
        return self._stats_v2() if self.layout.is_v2 else self._stats_v1()

    def _stats_v1(self) -> Stats:
        return Stats(
            cpu_usage_ns=int(self._read_v1("cpuacct", "cpuacct.usage") or 0),
            memory_bytes=int(self._read_v1("memory", "memory.usage_in_bytes") or 0),
            memory_limit_bytes=cgroups_v1.memory_limit(self._read_v1("memory", "memory.limit_in_bytes")),
            memory_peak_bytes=int(self._read_v1("memory", "memory.max_usage_in_bytes") or 0),
            pids=int(self._read_v1("pids", "pids.current") or 0),
            oom_kills=self.oom_kills(),
        )

    def _stats_v2(self) -> Stats:
        folder = self.layout.unified + self.path
        limit, peak = _read(f"{folder}/memory.max").strip(), _read(f"{folder}/memory.peak").strip()
        return Stats(
            cpu_usage_ns=cgroups_v2.flat(_read(f"{folder}/cpu.stat")).get("usage_usec", 0) * 1000,
            memory_bytes=int(_read(f"{folder}/memory.current") or 0),
            memory_limit_bytes=None if limit in {"", "max"} else int(limit),
            memory_peak_bytes=int(peak) if peak else None,
            pids=int(_read(f"{folder}/pids.current") or 0),
            oom_kills=self.oom_kills(),
        )

    def oom_kills(self) -> int:
        """How many processes the kernel killed here because the memory limit was reached."""
        if self.layout.is_v2:
            return cgroups_v2.flat(_read(f"{self.layout.unified}{self.path}/memory.events")).get("oom_kill", 0)
        return cgroups_v1.oom_kills(self._read_v1)

    def _read_v1(self, controller: str, file: str) -> str:
        folder = self.layout.folder(controller, self.path)
        return _read(f"{folder}/{file}") if folder else ""

    def kill_all(self) -> None:
        """Kill every process of the group and wait until they are gone (one second at most)."""
        for _ in range(_KILL_ROUNDS):
            pids = self.pids()
            if not pids:
                return
            self._kill(pids)
            time.sleep(_KILL_PAUSE_S)
        raise errors.SetupFailed(
            f"cgroup {self.path}: processes {self.pids()[:10]} do not end when killed; look at their /proc/PID/stack",
            step="cgroup kill",
            errno=errno.EBUSY,
        )

    def _kill(self, pids: list[int]) -> None:
        kill_file = f"{self.layout.unified}{self.path}/cgroup.kill"
        if self.layout.is_v2 and os.path.exists(kill_file):
            _write(kill_file, "1")
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.let_die()

    def let_die(self) -> None:
        """After a kill: what is frozen dies only when it is thawed on version 1, and at once on version 2."""
        if self._read_v1("freezer", "freezer.state").strip() in {"FROZEN", "FREEZING"}:
            self.thaw()

    def freeze(self) -> None:
        """Stop every process of the group where it is; returns when all have stopped."""
        self._set_frozen(frozen=True)

    def thaw(self) -> None:
        """Let the processes go on."""
        self._set_frozen(frozen=False)

    def is_frozen(self) -> bool:
        """Whether the group was told to stop, and has."""
        if self.layout.is_v2:
            return "frozen 1" in _read(f"{self.layout.unified}{self.path}/cgroup.events")
        return self._read_v1("freezer", "freezer.state").strip() == "FROZEN"

    def _set_frozen(self, *, frozen: bool) -> None:
        if self.layout.is_v2:
            folder = self.layout.unified + self.path
            _write(f"{folder}/cgroup.freeze", str(int(frozen)))
            _await(lambda: f"frozen {int(frozen)}" in _read(f"{folder}/cgroup.events"), f"cgroup {self.path}: freeze")
            return
        folder = self.layout.folder("freezer", self.path)
        wanted = "FROZEN" if frozen else "THAWED"
        _write(f"{folder}/freezer.state", wanted)
        _await(lambda: _read(f"{folder}/freezer.state").strip() == wanted, f"cgroup {self.path}: {wanted}")

    def delete(self) -> None:
        """Remove the folders, with those that the container made below. Nothing to remove is no error."""
        for folder in self.folders:
            _remove_tree(folder, _MAX_DEPTH)


def enter(doors: list[int]) -> None:
    """Move the caller, which must have one thread, into a group, and close the doors.

    Version 1 moves a thread that moves itself without a lock over all processes of the machine, whose taking waits for
    a grace period of RCU: 0.05 ms instead of 10 ms or more (kernel/cgroup, cgroup_procs_write_start).
    """
    for door in doors:
        with errors.step("enter the cgroup"):
            os.write(door, b"0")
        os.close(door)


def existing(layout: Layout, path: str) -> Cgroup:
    """The group as it is on this machine now, with whatever folders are there."""
    mounts = [layout.unified] if layout.is_v2 else list(dict.fromkeys(mount for _, mount in layout.controllers))
    found = tuple(mount + path for mount in mounts if os.path.isdir(mount + path))
    return Cgroup(layout=layout, path=path, folders=found)


def _enable(folder: str, words: str) -> None:
    """Give controllers to the groups below a folder of version 2."""
    try:
        _write(f"{folder}/cgroup.subtree_control", words)
    except errors.SetupFailed as error:
        remedy = cgroups_v2.REMEDIES.get(error.errno)
        if remedy is None:
            raise
        message = f"cgroup {folder}: cannot give {words} to the groups below it: {remedy}"
        raise errors.SetupFailed(message, step="cgroup controllers", errno=error.errno) from None


def _has_swap() -> bool:
    return len(_read("/proc/swaps").splitlines()) > 1


def _make_folder(folder: str) -> None:
    with errors.step(f"cgroup {folder}: create"):
        try:
            os.mkdir(folder, 0o755)
        except FileNotFoundError:
            os.makedirs(folder, 0o755)
        except FileExistsError:
            if not _read(f"{folder}/cgroup.procs").strip():
                return
            raise OSError(errno.EEXIST, "exists and holds processes; use another path, or end them") from None


def visible_folders(group: Cgroup) -> tuple[tuple[str, str], ...]:
    """What a container may see of itself: names below its /sys/fs/cgroup ("" for all of it) and folders of the host."""
    if group.layout.is_v2:
        return (("", group.folders[0]),)
    return tuple((os.path.basename(folder.removesuffix(group.path)), folder) for folder in group.folders)


def _remove_tree(folder: str, depth: int) -> None:
    for _ in range(_KILL_ROUNDS):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        else:
            return
        children = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        if children and depth:
            for child in children:
                _remove_tree(child, depth - 1)
        else:  # the last process has ended but is not reaped yet
            time.sleep(_KILL_PAUSE_S)
    raise errors.SetupFailed(
        f"cgroup {folder}: cannot be removed while processes are in it: {_read(f'{folder}/cgroup.procs').split()}",
        step="cgroup delete",
        errno=errno.EBUSY,
    )


def _await(condition: Callable[[], bool], what: str) -> None:
    for _ in range(_FREEZE_ROUNDS):
        if condition():
            return
        time.sleep(_KILL_PAUSE_S)
    raise errors.SetupFailed(f"{what}: not reached within 2 seconds", step=what, errno=errno.ETIMEDOUT)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return (file.readall() or b"").decode()
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.ENODEV:  # the group was removed between open and read
            return ""
        raise


def _write(path: str, value: str) -> None:
    """One write(2): the kernel takes a value whole or not at all."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise errors.SetupFailed.at(
            f"cgroup: write {value!r} to {path}", OSError(error.errno, error.strerror)
        ) from None

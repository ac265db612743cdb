"""The cgroup of one container: create, limit, enter, measure, kill, freeze, delete, on version 1, 2 or a hybrid.

What to write where is decided by `cgroups_v1` and `cgroups_v2`; this module only reads and writes. A cgroup is
named by its path from the root of the hierarchies, and by nothing else, so any process can pick it up.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from typing import Final

from runtime import cgroupfiles, cgrouppath, cgroups_v1, cgroups_v2, cgroupsetting, devicefilter, errors, values
from runtime.cgrouplayout import Layout, current_layout, find_layout
from runtime.cgroupsetting import Setting
from runtime.resources import Resources
from runtime.values import frozen

__all__ = [
    "Cgroup",
    "Layout",
    "Stats",
    "current_layout",
    "enter",
    "existing",
    "find_layout",
    "of",
    "visible_folders",
]

_MAX_DEPTH: Final = 32
_NO_FREEZER: Final = (
    "cgroup {}: has no freezer, so nothing can be paused; have the freezer controller mounted, and a group"
)


@frozen
class Stats:
    """One measurement of a container. None: this machine does not tell."""

    cpu_usage_ns: int
    memory_bytes: int
    memory_limit_bytes: int | None
    memory_peak_bytes: int | None
    pids: int
    oom_kills: int


@frozen
class Cgroup:
    """The group at `path`; the folders are those that `resources` need when it is created.

    Without a path there is no group: nothing is limited, counted or frozen, and nothing is ever removed or killed.
    """

    layout: Layout
    path: str
    folders: tuple[str, ...] = ()

    @classmethod
    def plan(cls, layout: Layout, path: str, resources: Resources) -> "Cgroup":
        """A group that is still to be created. Controllers that are mounted together share a folder."""
        if not path:
            return _NONE
        if layout.required().is_v2:
            return cls(layout=layout, path=path, folders=(layout.unified + path,))
        wanted = cgroups_v1.controllers(resources)
        found = (layout.folder(name, path) for name in wanted)
        return cls(layout=layout, path=path, folders=tuple(dict.fromkeys(folder for folder in found if folder)))

    def create(self, resources: Resources) -> None:
        """Make the folders, or none. A folder that is left from before is taken over when nobody is in it."""
        made: list[str] = []
        try:
            for folder in self.folders:
                cgroupfiles.make_folder(folder)
                made.append(folder)
            self.prepare(resources)
        except BaseException:
            for folder in made:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            raise

    def prepare(self, resources: Resources) -> None:
        """Let the folders, which are there, take these limits."""
        if self.layout.is_v2:
            self._enable_controllers(cgroups_v2.controllers(resources))
        elif resources.cpus or resources.mems:
            self._inherit_cpuset()

    def _enable_controllers(self, wanted: tuple[str, ...]) -> None:
        for ancestor in cgroups_v2.ancestors(self.path):
            folder = self.layout.unified + ancestor.rstrip("/")
            available, enabled = (
                cgroupfiles.read(f"{folder}/cgroup.{name}") for name in ("controllers", "subtree_control")
            )
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
                if not cgroupfiles.read(f"{folder}/{file}").strip():
                    cgroupfiles.write(f"{folder}/{file}", cgroupfiles.read(f"{above}/{file}").strip())
            above = folder

    def apply(self, resources: Resources) -> None:
        """Write the limits."""
        for file, setting in self.settings(resources):
            if not cgroupsetting.is_needless(file, setting):
                cgroupsetting.write(file, setting)
        if self.layout.is_v2 and resources.devices:
            with errors.step(f"cgroup {self.path}: device rules"):
                devicefilter.attach(self.layout.unified + self.path, devicefilter.whole(resources.devices))

    def settings(self, resources: Resources) -> Iterator[tuple[str, Setting]]:
        """The files of this group and what to write there; raises for what this machine or version has not."""
        if not self.path:
            _refuse_without_group(resources)
            return
        if self.layout.is_v2:
            yield from self._settings_v2(resources)
            return
        for setting in cgroups_v1.settings(resources, self._exists):
            folder = self.layout.folder(setting.controller, self.path)
            if not folder:
                raise cgroupsetting.missing(setting, self.path, cgroups_v1.REMEDY.replace("NAME", setting.controller))
            yield f"{folder}/{setting.file}", setting

    def _settings_v2(self, resources: Resources) -> Iterator[tuple[str, Setting]]:
        folder = self.layout.unified + self.path
        available = cgroupfiles.read(f"{folder}/cgroup.controllers").split()
        for setting in cgroups_v2.settings(resources, self._exists):
            if setting.controller not in {*available, cgroups_v2.CORE}:
                raise cgroupsetting.missing(setting, self.path, cgroups_v2.MISSING)
            yield f"{folder}/{setting.file}", setting

    def _exists(self, controller: str, file: str) -> bool:
        folder = self.layout.unified + self.path if self.layout.is_v2 else self.layout.folder(controller, self.path)
        return os.path.exists(f"{folder}/{file}")

    def add(self, pid: int) -> None:
        """Move a process into the group."""
        for folder in self.folders:
            cgroupfiles.write(f"{folder}/cgroup.procs", str(pid))

    def doors(self) -> list[int]:
        """Descriptors by which a process enters (`enter`) that has no privileges of its own over the groups."""
        with errors.step(f"cgroup {self.path}"):
            return [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in self.door_paths()]

    def door_paths(self) -> list[str]:
        """The files that a process of one thread writes "0" to when it enters."""
        file = "cgroup.procs" if self.layout.is_v2 else "tasks"
        return [f"{folder}/{file}" for folder in self.folders]

    def enter(self) -> None:
        """Move the caller, which must have one thread, into the group."""
        enter(self.doors())

    def now(self) -> "Cgroup":
        """The group with the folders that it has by now: on version 1 an update may have given it more."""
        return existing(self.layout, self.path) if self.layout.controllers and self.path else self

    def pids(self) -> list[int]:
        """The processes of the group and of the groups below it."""
        found: set[int] = set()
        for folder in self.folders[:1]:
            for inner, _, _ in os.walk(folder):
                found.update(int(line) for line in cgroupfiles.read(f"{inner}/cgroup.procs").split())
        return sorted(found)

    def stats(self) -> Stats:
        """Measure the most important now. A group that is gone counts as zero everywhere."""
        return self._stats_v2() if self.layout.is_v2 else self._stats_v1()

    def _stats_v1(self) -> Stats:
        return Stats(
            cpu_usage_ns=int(self.read("cpuacct", "cpuacct.usage") or 0),
            memory_bytes=int(self.read("memory", "memory.usage_in_bytes") or 0),
            memory_limit_bytes=self.memory_limit(),
            memory_peak_bytes=int(self.read("memory", "memory.max_usage_in_bytes") or 0),
            pids=int(self.read("pids", "pids.current") or 0),
            oom_kills=self.oom_kills(),
        )

    def _stats_v2(self) -> Stats:
        peak = self.read("memory", "memory.peak").strip()
        return Stats(
            cpu_usage_ns=cgroups_v2.flat(self.read("cpu", "cpu.stat")).get("usage_usec", 0) * 1000,
            memory_bytes=int(self.read("memory", "memory.current") or 0),
            memory_limit_bytes=self.memory_limit(),
            memory_peak_bytes=int(peak) if peak else None,
            pids=int(self.read("pids", "pids.current") or 0),
            oom_kills=self.oom_kills(),
        )

    def memory_limit(self) -> int | None:
        """The limit in force, in bytes; None for none."""
        if self.layout.is_v2:
            return cgroups_v2.limit(self.read("memory", "memory.max"))
        return cgroups_v1.memory_limit(self.read("memory", "memory.limit_in_bytes"))

    def oom_kills(self) -> int:
        """How many processes the kernel killed here because the memory limit was reached."""
        if self.layout.is_v2:
            return cgroups_v2.flat(self.read("memory", "memory.events")).get("oom_kill", 0)
        return cgroups_v1.oom_kills(self.read)

    def has(self, controller: str) -> bool:
        """Whether the group has a place in this controller."""
        if self.layout.is_v2:
            return controller in self.read("cgroup", "cgroup.controllers").split()
        folder = self.layout.folder(controller, self.path)
        return bool(folder) and os.path.isdir(folder)

    def read(self, controller: str, file: str) -> str:
        """A file of a controller's folder; empty when it is not there."""
        folder = self.layout.unified + self.path if self.layout.is_v2 else self.layout.folder(controller, self.path)
        return cgroupfiles.read(f"{folder}/{file}") if folder else ""

    def kill_all(self) -> None:
        """Kill every process of the group and wait until they are gone (one second at most)."""
        for _ in range(cgroupfiles.ROUNDS):
            pids = self.pids()
            if not pids:
                return
            self._kill(pids)
            time.sleep(cgroupfiles.PAUSE_S)
        raise errors.SetupFailed(
            f"cgroup {self.path}: processes {self.pids()[:10]} do not end when killed; look at their /proc/PID/stack",
            step="cgroup kill",
            errno=errno.EBUSY,
        )

    def _kill(self, pids: list[int]) -> None:
        kill_file = f"{self.layout.unified}{self.path}/cgroup.kill"
        if self.layout.is_v2 and os.path.exists(kill_file):
            cgroupfiles.write(kill_file, "1")
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.let_die()

    def let_die(self) -> None:
        """After a kill: what is frozen dies only when it is thawed on version 1, and at once on version 2."""
        if self.read("freezer", "freezer.state").strip() in {"FROZEN", "FREEZING"}:
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
            return "frozen 1" in cgroupfiles.read(f"{self.layout.unified}{self.path}/cgroup.events")
        return self.read("freezer", "freezer.state").strip() == "FROZEN"

    def _set_frozen(self, *, frozen: bool) -> None:
        if self.layout.is_v2:
            folder = self.layout.unified + self.path
            cgroupfiles.write(f"{folder}/cgroup.freeze", str(int(frozen)))
            cgroupfiles.wait_for(
                lambda: f"frozen {int(frozen)}" in cgroupfiles.read(f"{folder}/cgroup.events"),
                f"cgroup {self.path}: freeze",
            )
            return
        folder = self.layout.folder("freezer", self.path)
        if not folder:
            raise errors.SetupFailed(_NO_FREEZER.format(self.path or "none"), step="freeze")
        wanted = "FROZEN" if frozen else "THAWED"
        cgroupfiles.write(f"{folder}/freezer.state", wanted)
        cgroupfiles.wait_for(
            lambda: cgroupfiles.read(f"{folder}/freezer.state").strip() == wanted, f"cgroup {self.path}: {wanted}"
        )

    def delete(self) -> None:
        """Remove the folders, with those that the container made below. Nothing to remove is no error."""
        for folder in self.folders:
            cgroupfiles.remove_tree(folder, _MAX_DEPTH)
            self._leave_scope(folder)

    def clear(self) -> None:
        """Likewise, after killing whoever is in there. That is rarely anybody, and the kernel says whether it is."""
        with contextlib.suppress(OSError):
            for folder in self.folders:
                os.rmdir(folder)
                self._leave_scope(folder)
            return
        self.now().kill_all()
        self.delete()

    def _leave_scope(self, folder: str) -> None:
        if cgrouppath.scope(self.path):
            cgroupfiles.remove_empty(os.path.dirname(folder))


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
    assert path, "the roots of the hierarchies are nobody's to change"
    mounts = [layout.unified] if layout.is_v2 else list(dict.fromkeys(mount for _, mount in layout.controllers))
    found = tuple(mount + path for mount in mounts if os.path.isdir(mount + path))
    return Cgroup(layout=layout, path=path, folders=found)


def of(path: str, layout: Layout | None = None) -> Cgroup:
    """The group of a container that is there, or none for one that has no path. Without a layout it is looked up."""
    return existing(layout or current_layout(), path) if path else _NONE


_NONE: Final = Cgroup(layout=Layout(), path="")


def _refuse_without_group(resources: Resources) -> None:
    for setting in (
        *cgroups_v1.settings(values.replace(resources, unified=())),
        *(Setting("", file, value, f"unified[{file}]") for file, value in resources.unified),
    ):
        why = "needs a cgroup, and --cgroup-manager disabled asks for none; remove it, or use cgroupfs"
        raise cgroupsetting.refuse(setting.field, why)


def _enable(folder: str, words: str) -> None:
    """Give controllers to the groups below a folder of version 2.

    Who may not goes without: a limit that misses one says so when it is written.
    """
    try:
        cgroupfiles.write(f"{folder}/cgroup.subtree_control", words)
    except errors.SetupFailed as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return
        remedy = cgroups_v2.REMEDIES.get(error.errno)
        if remedy is None:
            raise
        message = f"cgroup {folder}: cannot give {words} to the groups below it: {remedy}"
        raise errors.SetupFailed(message, step="cgroup controllers", errno=error.errno) from None


def visible_folders(group: Cgroup) -> tuple[tuple[str, str], ...]:
    """What a container may see of itself: names below its /sys/fs/cgroup ("" for all of it) and folders of the host."""
    if group.layout.is_v2:
        return (("", group.folders[0]),)
    return tuple((os.path.basename(folder.removesuffix(group.path)), folder) for folder in group.folders)

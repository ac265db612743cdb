"""Where a launcher lives among the control groups, with all that it forks: apart from whoever has started it.

A service manager takes what is in a service's group for the service: it warns of monitors that an agent has left
behind, and kills them when it is told to kill the agent. So a launcher goes to another group before it forks anything,
and what it forks is born there. A container has groups of its own, but on version 1 only where a controller is;
elsewhere it stays where its monitor is, also in the hierarchy in which systemd keeps its services.

One rule: it goes only where somebody has put it. At the top of a hierarchy it is nobody's, and stays. The group above
may be missing, when its unit has ended: systemd does not mind whoever makes it again.
"""

import os
from collections.abc import Iterator

from runtime import cgroupfiles, errors


def mounts(mountinfo: str) -> dict[str, str]:
    """Where each hierarchy is, by the controllers or the name of version 1, and "" for version 2.

    `mountinfo`: the text of /proc/self/mountinfo, see proc_pid_mountinfo(5).
    """
    found: dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount_point = before.split(" ", 5)[4]
        if kind == "cgroup2":
            found.setdefault("", mount_point)
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, mount_point)
    return found


def folders(own: str, mounted: dict[str, str], path: str) -> Iterator[str]:
    """The folders of the group at `path` that a process goes to; `own`: its /proc/PID/cgroup, see cgroups(7).

    Example: `1:name=systemd:/system.slice/a.service` → `/sys/fs/cgroup/systemd` with the path; `4:freezer:/` → nothing.
    """
    for line in own.splitlines():
        _, names, present = line.split(":", 2)
        at = mounted.get(names.split(",", 1)[0], "")
        if at and present != "/":
            yield at + path


def enter(path: str) -> None:
    """Move the caller, which must have one thread, to the group at `path`, which is made. Raises SetupFailed."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounted = mounts(file.read())
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = file.read()
    for folder in folders(own, mounted, path):
        with errors.step(f"cgroup {folder}: create"):
            os.makedirs(folder, 0o755, exist_ok=True)
        cgroupfiles.write(f"{folder}/cgroup.procs", "0")


def remove(path: str, depth: int) -> None:
    """Remove the group in every hierarchy, with those below. Raises SetupFailed while somebody is in one."""
    for folder in everywhere(path):
        cgroupfiles.remove_tree(folder, depth)


def everywhere(path: str) -> list[str]:
    """The folders that the group at `path` has in the hierarchies, or would have."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounted = mounts(file.read())
    return [at + path for at in sorted(set(mounted.values()))]

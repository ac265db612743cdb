"""Where this machine has its cgroups: version 1, version 2, or a hybrid, which is version 1 for us."""

from typing import Final, Self

from runtime import errors
from runtime.values import frozen


@frozen
class Layout:
    """Where this machine has its hierarchies mounted: by controller for version 1, or the one of version 2."""

    controllers: tuple[tuple[str, str], ...] = ()
    unified: str = ""

    @property
    def is_v2(self) -> bool:
        """Whether version 2 governs; a unified mount beside version 1 controllers is a hybrid, hence version 1."""
        return bool(self.unified) and not self.controllers

    def required(self) -> Self:
        """The same; raises SetupFailed where nothing is mounted."""
        if not self.controllers and not self.unified:
            raise errors.SetupFailed("cgroups: nothing is mounted; mount cgroup2 at /sys/fs/cgroup", step="cgroups")
        return self

    def folder(self, controller: str, path: str) -> str:
        """The folder of a group in a hierarchy; "" when the machine does not have that controller."""
        mounted = dict(self.controllers).get(controller, "")
        return mounted + path if mounted else ""


def find_layout(mountinfo: str) -> Layout:
    """Read the text of /proc/self/mountinfo (proc(5)): "… mount-point … - type source super-options"."""
    named: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount_point = before.split(" ", 5)[4]
        if kind == "cgroup2":
            unified = unified or mount_point
        elif kind == "cgroup":
            for option in options.split(","):
                named.setdefault(option, mount_point)
    known = (name for name in named if name in _V1_CONTROLLERS)
    return Layout(controllers=tuple((name, named[name]) for name in known), unified=unified)


_V1_CONTROLLERS: Final = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids net_cls net_prio perf_event hugetlb rdma misc".split()
)


def current_layout() -> Layout:
    """The layout of this machine; an empty one where nothing is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return find_layout(file.read())

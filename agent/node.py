"""What an agent says of its machine."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from protos import release
from protos.orch.v1 import objects_pb2 as pb
from runtime import cgroups

MAX_TASKS = 1000
RESERVED_CPU = 0
RESERVED_MEMORY_BYTES = 256 * 1024 * 1024
"""Kept for the machine itself and its agent."""
RESERVED_PIDS = 1024
RESERVED_DISK_PERCENT = 10


def describe(
    *,
    address: str,
    blob_port: int,
    containers: int,
    no_users: str,
    disk: Path,
    generic: Mapping[str, Sequence[str]],
) -> pb.NodeDescription:
    """Read the machine. `containers`: how many can have users of their own; `no_users`: why none can. `blob_port`:
    where other nodes fetch images, 0 for nowhere.

    `disk`: a folder on the disk that containers write to; `generic`: the ids of things, by name.
    """
    return pb.NodeDescription(
        hostname=platform.node(),
        address=address,
        blob_port=blob_port,
        platform=f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}",
        kernel=platform.release(),
        os=_os_name(Path("/etc/os-release")),
        cgroup_mode=_cgroup_mode(),
        agent_version=release.VERSION,
        capacity=pb.NodeCapacity(
            cpu=len(os.sched_getaffinity(0)) * 1000 - RESERVED_CPU,
            memory=max(0, memory_total(Path("/proc/meminfo").read_text()) - RESERVED_MEMORY_BYTES),
            tasks=MAX_TASKS if no_users else min(MAX_TASKS, containers),
            pids=processes_at_most(Path("/proc/sys/kernel")),
            disk=disk_for_containers(disk),
            generic={name: pb.GrantedResources(ids=ids) for name, ids in generic.items()},
        ),
        no_users=no_users,
    )


def processes_at_most(kernel: Path) -> int:
    """How many processes and threads containers may have: what proc_sys_kernel(5) allows, less the machine's own."""
    limits = [int((kernel / name).read_text()) for name in ("pid_max", "threads-max")]
    return max(0, min(limits) - RESERVED_PIDS)


def disk_for_containers(folder: Path) -> int:
    """Bytes of the file system that the folder is on, without what is kept for images and the machine.

    Example: 100 GiB → 90 GiB. What is used already is not taken off: it changes all the time, and nothing is written
    about it.
    """
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize * (100 - RESERVED_DISK_PERCENT) // 100


def memory_total(meminfo: str) -> int:
    """Bytes in the line `MemTotal:       16384 kB` of proc_meminfo(5)."""
    total = memory_of(meminfo).get("MemTotal")
    if total is None:
        raise ValueError("/proc/meminfo has no line MemTotal")
    return total


def memory_of(meminfo: str) -> dict[str, int]:
    """Bytes, by what they are for, of the lines of proc_meminfo(5) that tell sizes."""
    lines = (line.partition(":") for line in meminfo.splitlines())
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in lines if rest.endswith(" kB")}


def _os_name(path: Path) -> str:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return "Linux"
    fields = dict(line.partition("=")[::2] for line in lines)
    return fields.get("PRETTY_NAME", "Linux").strip('"')


def _cgroup_mode() -> str:
    layout = cgroups.current_layout().required()
    if layout.is_v2:
        return "v2"
    return "hybrid" if layout.unified else "v1"


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

"""One limit as it is written into a cgroup, and what to say when it cannot be.

One rule: whoever asked for a limit knows its field in the configuration, so an error names the field first.
"""

import errno
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from runtime import cgroupfiles, errors
from runtime.resources import BlockIo, DeviceValue, Resources

Exists = Callable[[str, str], bool]
"""Whether the group's folder has this file, of this controller."""


class Setting(NamedTuple):
    """A controller, a file in its folder, what to write there, and the field below `linux.resources`."""

    controller: str
    file: str
    value: str
    field: str


def everything(_controller: str, _file: str) -> bool:
    """Stands for a machine that has every file."""
    return True


def refuse(field: str, why: str) -> errors.InvalidSpec:
    """The refusal of a field, to be raised."""
    return errors.InvalidSpec(f"linux.resources.{field}: {why}")


def missing(setting: Setting, path: str, remedy: str) -> errors.SetupFailed:
    """The group has no place for a controller's limits."""
    message = f"linux.resources.{setting.field}: cgroup {path} has no {setting.controller} controller; {remedy}"
    return errors.SetupFailed(message, step="cgroup limits")


def write(path: str, setting: Setting) -> None:
    """Write it, line by line, as the kernel takes one at a time."""
    for line in setting.value.splitlines() or [""]:
        try:
            cgroupfiles.write(path, line or "\n")  # nothing at all would be no write
        except errors.SetupFailed as error:
            raise _failed(path, setting, error) from None


def is_needless(path: str, setting: Setting) -> bool:
    """Whether a kernel without the file does all the same what is asked."""
    if setting.file in _SWAP_FILES:
        return not os.path.exists(path) and not _has_swap()  # it does not account for swap, and nothing is swapped out
    return setting.value == "0" and setting.file in _ZERO_FROM_THE_START and not os.path.exists(path)


_SWAP_FILES: Final = frozenset({"memory.swap.max", "memory.memsw.limit_in_bytes"})
_ZERO_FROM_THE_START: Final = frozenset({"cpu.idle", "cpu.cfs_burst_us", "cpu.max.burst"})


def _has_swap() -> bool:
    return len(cgroupfiles.read("/proc/swaps").splitlines()) > 1


def _failed(path: str, setting: Setting, error: errors.SetupFailed) -> errors.SetupFailed:
    if error.errno == errno.ENOENT:
        why, remedy = f"this kernel has no {setting.file} there", "remove the limit, or start a kernel that has it"
    else:
        why, remedy = os.strerror(error.errno), _remedy(setting.file, error.errno)
    message = f"linux.resources.{setting.field}: cannot write {setting.value!r} to {path}: {why}; {remedy}"
    return errors.SetupFailed(message, step="cgroup limits", errno=error.errno)


def _remedy(file: str, number: int) -> str:
    for start, code, remedy in _REMEDIES:
        if file.startswith(start) and number == code:
            return remedy
    return "give a value that the kernel takes there, or remove the limit"


_REMEDIES: Final = (
    ("memory.", errno.EBUSY, "the container uses more than that, and no more can be taken back; choose a higher limit"),
    ("memory.", errno.EINVAL, "memory may not be above memory with swap, nor swap be limited without it"),
    ("cpu.rt_", errno.EINVAL, "every group above needs as much of its own, in this file; give it to them first"),
    ("cpu.rt_", errno.EBUSY, "processes of the container have a real-time policy; take it from them first"),
    ("cpu.shares", errno.EINVAL, "an idle group has no weight; set cpu.idle to 0 with it"),
    ("cpu.weight", errno.EINVAL, "an idle group has no weight; set cpu.idle to 0 with it"),
    ("cpu.cfs_", errno.EINVAL, "a quota is 1000 or more, a burst not above it, and a group above may allow less"),
    ("cpu.max", errno.EINVAL, "a burst may not be above the quota"),
    ("cpuset.", errno.EACCES, "the group above does not have all of these"),
    ("cpuset.", errno.ERANGE, "name what the machine has, as in 0-2,7"),
    ("cpuset.", errno.EINVAL, "name what the machine and the group above have, as in 0-2,7"),
    ("cpuset.", errno.ENOSPC, "processes are in the group, which must keep one processor and one memory node"),
    ("blkio.", errno.ENODEV, "there is no such block device, or it is a partition; name the whole disk"),
    ("io.", errno.ENODEV, "there is no such block device, or it is a partition; name the whole disk"),
    ("blkio.bfq.", errno.EOPNOTSUPP, "write bfq to the disk's /sys/dev/block/MAJOR:MINOR/queue/scheduler first"),
    ("io.bfq.", errno.EOPNOTSUPP, "write bfq to the disk's /sys/dev/block/MAJOR:MINOR/queue/scheduler first"),
    ("rdma.", errno.ENODEV, "there is no such device; /sys/class/infiniband lists them"),
    ("net_prio.", errno.ENODEV, "there is no such network interface"),
)


def rates(wanted: BlockIo) -> tuple[tuple[str, str, str, tuple[DeviceValue, ...]], ...]:
    """The rates with their names: field, file of version 1, key of version 2's io.max, and devices."""
    return (
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", wanted.read_bps),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", wanted.write_bps),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", wanted.read_iops),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", wanted.write_iops),
    )


def huge_pages(size: str, limit: int, word: str, exists: Exists) -> Iterator[Setting]:
    """Of pages in use, and of those reserved for use by a mapping, where the kernel counts them apart (Linux 5.7)."""
    yield Setting("hugetlb", f"hugetlb.{size}.{word}", str(limit), f"hugepageLimits[{size}]")
    if exists("hugetlb", f"hugetlb.{size}.rsvd.{word}"):
        yield Setting("hugetlb", f"hugetlb.{size}.rsvd.{word}", str(limit), f"hugepageLimits[{size}]")


def rdma(wanted: Resources) -> Iterator[Setting]:
    """The same on both versions: `mlx4_0 hca_handle=2 hca_object=max`."""
    for limit in wanted.rdma:
        handles, objects = ("max" if number is None else number for number in (limit.handles, limit.objects))
        value = f"{limit.device} hca_handle={handles} hca_object={objects}"
        yield Setting("rdma", "rdma.max", value, f"rdma[{limit.device}]")

"""cgroup version 1: one hierarchy for each controller, at most a folder in each. Values in, values out.

Kernel: Documentation/admin-guide/cgroup-v1. A container gets a folder only in the controllers that serve it, since
each costs a mkdir, an attach and an rmdir (about 50 µs together).
"""

from collections.abc import Callable, Iterator
from typing import Final

from runtime import devicefilter
from runtime.cgroupsetting import Exists, Setting, everything, huge_pages, rates, rdma, refuse
from runtime.resources import BlockIo, DeviceRule, DeviceValue, Resources

_ALWAYS: Final = ("memory", "pids", "cpu", "cpuacct", "freezer", "devices")
_NO_LIMIT: Final = 2**62

REMEDY: Final = (
    "mount it (mount -t cgroup -o NAME …; /proc/cgroups lists what this kernel has, and version 2 may hold it), "
    "or remove the limit"
)
"""Where a controller is not mounted."""


def controllers(resources: Resources) -> tuple[str, ...]:
    """The controllers that a container with these limits is put into."""
    further = {
        "cpuset": resources.cpus or resources.mems,
        "blkio": resources.block_io is not None or resources.counts_io,
        "hugetlb": resources.huge_pages,
        "net_cls": resources.network_class,
        "net_prio": resources.network_priorities,
        "rdma": resources.rdma,
    }
    return (*_ALWAYS, *(name for name, needed in further.items() if needed))


def settings(resources: Resources, exists: Exists = everything) -> list[Setting]:
    """The files to write, in order: memory before memory with swap, which may never be the smaller.

    Raises InvalidSpec for what version 1 has not.
    """
    if resources.unified:
        raise refuse(f"unified[{resources.unified[0][0]}]", "is cgroup v2's, and this machine has v1; remove it")
    return [
        *_memory(resources),
        *_cpu(resources),
        *_pids(resources.pids_limit),
        *_block_io(resources.block_io, exists),
        *_others(resources, exists),
        *_devices(resources.devices),
    ]


def _chosen(rows: tuple[tuple[str, str, object, str], ...]) -> Iterator[Setting]:
    return (
        Setting(controller, file, str(value), field) for controller, file, value, field in rows if value is not None
    )


def _memory(wanted: Resources) -> Iterator[Setting]:
    # The only way there is since Linux 5.11, which is fine with being told so.
    hierarchy = 1 if wanted.memory_hierarchy else None
    killer = 1 if wanted.oom_killer_disabled else None
    return _chosen(
        (
            ("memory", "memory.use_hierarchy", hierarchy, "memory.useHierarchy"),
            ("memory", "memory.limit_in_bytes", wanted.memory_limit_bytes, "memory.limit"),
            ("memory", "memory.memsw.limit_in_bytes", wanted.memory_swap_bytes, "memory.swap"),
            ("memory", "memory.soft_limit_in_bytes", wanted.memory_reservation_bytes, "memory.reservation"),
            ("memory", "memory.kmem.tcp.limit_in_bytes", wanted.memory_kernel_tcp_bytes, "memory.kernelTCP"),
            ("memory", "memory.swappiness", wanted.memory_swappiness, "memory.swappiness"),
            ("memory", "memory.oom_control", killer, "memory.disableOOMKiller"),
        )
    )


def _cpu(wanted: Resources) -> Iterator[Setting]:
    return _chosen(
        (
            ("cpu", "cpu.shares", wanted.cpu_shares, "cpu.shares"),
            ("cpu", "cpu.cfs_period_us", wanted.cpu_period_us, "cpu.period"),
            ("cpu", "cpu.cfs_quota_us", wanted.cpu_quota_us, "cpu.quota"),
            ("cpu", "cpu.cfs_burst_us", wanted.cpu_burst_us, "cpu.burst"),
            ("cpu", "cpu.rt_period_us", wanted.cpu_realtime_period_us, "cpu.realtimePeriod"),
            ("cpu", "cpu.rt_runtime_us", wanted.cpu_realtime_runtime_us, "cpu.realtimeRuntime"),
            ("cpu", "cpu.idle", wanted.cpu_idle, "cpu.idle"),
            ("cpuset", "cpuset.cpus", wanted.cpus or None, "cpu.cpus"),
            ("cpuset", "cpuset.mems", wanted.mems or None, "cpu.mems"),
        )
    )


def _pids(limit: int | None) -> Iterator[Setting]:
    if limit is not None:
        yield Setting("pids", "pids.max", "max" if limit <= 0 else str(limit), "pids.limit")


def _block_io(wanted: BlockIo | None, exists: Exists) -> Iterator[Setting]:
    """BFQ's weights have its name; the plain ones, and the weights of leaves, were CFQ's and ended with Linux 5.0."""
    if wanted is None:
        return
    bfq = "blkio.bfq.weight" if exists("blkio", "blkio.bfq.weight") else "blkio.weight"
    if wanted.weight is not None:
        yield Setting("blkio", bfq, str(wanted.weight), "blockIO.weight")
    if wanted.leaf_weight is not None:
        yield Setting("blkio", "blkio.leaf_weight", str(wanted.leaf_weight), "blockIO.leafWeight")
    yield from _each(f"{bfq}_device", wanted.device_weights, "blockIO.weightDevice")
    yield from _each("blkio.leaf_weight_device", wanted.device_leaf_weights, "blockIO.weightDevice")
    for field, file, _, devices in rates(wanted):
        yield from _each(file, devices, f"blockIO.{field}")


def _each(file: str, devices: tuple[DeviceValue, ...], field: str) -> Iterator[Setting]:
    return (Setting("blkio", file, f"{each.major}:{each.minor} {each.value}", field) for each in devices)


def _others(wanted: Resources, exists: Exists) -> Iterator[Setting]:
    for size, limit in wanted.huge_pages:
        yield from huge_pages(size, limit, "limit_in_bytes", exists)
    if wanted.network_class is not None:
        yield Setting("net_cls", "net_cls.classid", str(wanted.network_class), "network.classID")
    for name, priority in wanted.network_priorities:
        yield Setting("net_prio", "net_prio.ifpriomap", f"{name} {priority}", f"network.priorities[{name}]")
    yield from rdma(wanted)


def _devices(rules: tuple[DeviceRule, ...]) -> Iterator[Setting]:
    files = {True: "devices.allow", False: "devices.deny"}
    whole = devicefilter.whole(rules)
    return (Setting("devices", files[rule.allow], devicefilter.line(rule), "devices") for rule in whole)


def oom_kills(read: Callable[[str, str], str]) -> int:
    """How many processes of the group the kernel killed for memory (file since Linux 4.13)."""
    for line in read("memory", "memory.oom_control").splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0


def memory_limit(text: str) -> int | None:
    """The limit in bytes; the kernel's 2⁶³ rounded to pages stands for none."""
    limit = int(text or _NO_LIMIT)
    return None if limit >= _NO_LIMIT else limit

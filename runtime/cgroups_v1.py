"""cgroup version 1: one hierarchy for each controller, at most a folder in each. Values in, values out.

Kernel: Documentation/admin-guide/cgroup-v1. A container gets a folder only in the controllers that serve it, since
each costs a mkdir, an attach and an rmdir (about 50 µs together).
"""

from collections.abc import Callable
from typing import Final

from runtime import devicefilter
from runtime.resources import DeviceRule, Resources

Setting = tuple[str, str, str]
"""A controller, a file in its folder, and what to write there."""

_ALWAYS: Final = ("memory", "pids", "cpu", "cpuacct", "freezer", "devices")
_NO_LIMIT: Final = 2**62


def controllers(resources: Resources) -> tuple[str, ...]:
    """The controllers that a container with these limits is put into."""
    return (*_ALWAYS, "cpuset") if resources.cpus or resources.mems else _ALWAYS


def settings(resources: Resources) -> list[Setting]:
    """The files to write, in order: memory before memory with swap, which may never be the smaller."""
    candidates: list[tuple[str, str, object]] = [
        ("memory", "memory.limit_in_bytes", resources.memory_limit_bytes),
        ("memory", "memory.memsw.limit_in_bytes", resources.memory_swap_bytes),
        ("memory", "memory.soft_limit_in_bytes", resources.memory_reservation_bytes),
        ("cpu", "cpu.shares", resources.cpu_shares or None),
        ("cpu", "cpu.cfs_period_us", resources.cpu_period_us),
        ("cpu", "cpu.cfs_quota_us", resources.cpu_quota_us),
        ("cpuset", "cpuset.cpus", resources.cpus or None),
        ("cpuset", "cpuset.mems", resources.mems or None),
        ("pids", "pids.max", _pids(resources.pids_limit)),
    ]
    chosen = [(controller, file, str(value)) for controller, file, value in candidates if value is not None]
    return chosen + _devices(resources.devices)


def _pids(limit: int | None) -> str | None:
    if limit is None:
        return None
    return "max" if limit <= 0 else str(limit)


def _devices(rules: tuple[DeviceRule, ...]) -> list[Setting]:
    files = {True: "devices.allow", False: "devices.deny"}
    return [("devices", files[rule.allow], devicefilter.line(rule)) for rule in devicefilter.whole(rules)]


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

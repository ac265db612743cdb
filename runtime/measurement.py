"""Everything that a cgroup tells of itself, for people and for clients that show statistics.

One rule: what a machine does not tell is zero or empty here, as those clients expect it. (`Cgroup.stats` is the short
form, which says None.)
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from runtime import cgroups_v2
from runtime.cgroups import Cgroup
from runtime.values import field, frozen

NO_LIMIT: Final = 2**63 - 4096
"""What version 1 tells where there is no limit."""

Read = Callable[[str, str], str]
"""A file of a controller's folder; empty when it is not there."""


@frozen
class Cpu:
    """Times in ns; by processor on version 1 only."""

    total_ns: int
    user_ns: int
    kernel_ns: int
    each_ns: tuple[int, ...] = ()
    each_user_ns: tuple[int, ...] = ()
    each_kernel_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


@frozen
class Account:
    """What is used of something that has a limit, the most ever, and how often the limit was hit."""

    usage: int = 0
    peak: int = 0
    limit: int = NO_LIMIT
    hits: int = 0


@frozen
class Memory:
    """Bytes. `swap` is memory and swap together on version 1, and swap alone on version 2."""

    usage: Account
    swap: Account
    kernel: Account
    kernel_tcp: Account
    cache: int
    oom_kills: int
    raw: dict[str, int]  # memory.stat


@frozen
class IoCount:
    """How much of one kind a container did on one block device, in bytes or operations."""

    major: int
    minor: int
    kind: str  # Read, Write, Sync, Async, Discard, Total; on version 2 the first two and Discard
    value: int


@frozen
class Measurement:
    """One moment."""

    cpu: Cpu
    memory: Memory
    pids: int
    pids_limit: int  # 0: none
    io_bytes: tuple[IoCount, ...]
    io_operations: tuple[IoCount, ...]
    huge_pages: dict[str, Account] = field(default_factory=dict)  # by size, such as 2MB


def measure(group: Cgroup) -> Measurement:
    """Measure now."""
    sizes = _huge_page_sizes() if group.has("hugetlb") else []
    if group.layout.is_v2:
        return _version_2(group.read, sizes, group.oom_kills())
    return _version_1(group.read, sizes, group.oom_kills())


def _huge_page_sizes() -> list[str]:
    """As cgroups name them: /sys/kernel/mm/hugepages/hugepages-2048kB is 2MB, hugepages-1048576kB is 1GB."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir("/sys/kernel/mm/hugepages"))
        return [page_size(int(name.removeprefix("hugepages-").removesuffix("kB"))) for name in names]
    return []


def page_size(kilobytes: int) -> str:
    """In the largest unit that it fills: 64 is 64KB, 2048 is 2MB, 1048576 is 1GB."""
    for unit, size in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kilobytes >= size:
            return f"{kilobytes // size}{unit}"
    return f"{kilobytes}KB"


def _version_1(read: Read, sizes: list[str], oom_kills: int) -> Measurement:
    raw = cgroups_v2.flat(read("memory", "memory.stat"))
    memory = Memory(
        usage=_account(read, "memory", "memory."),
        swap=_account(read, "memory", "memory.memsw."),
        kernel=_account(read, "memory", "memory.kmem."),
        kernel_tcp=_account(read, "memory", "memory.kmem.tcp."),
        cache=raw.get("total_cache", raw.get("cache", 0)),
        oom_kills=oom_kills,
        raw=raw,
    )
    return Measurement(
        cpu=_cpu_1(read),
        memory=memory,
        pids=_number(read("pids", "pids.current")),
        pids_limit=cgroups_v2.limit(read("pids", "pids.max")) or 0,
        io_bytes=_counts(read, "io_service_bytes_recursive"),
        io_operations=_counts(read, "io_serviced_recursive"),
        huge_pages={size: _account(read, "hugetlb", f"hugetlb.{size}.") for size in sizes},
    )


def _account(read: Read, controller: str, start: str) -> Account:
    text = read(controller, f"{start}usage_in_bytes")
    if not text:
        return Account()
    return Account(
        usage=_number(text),
        peak=_number(read(controller, f"{start}max_usage_in_bytes")),
        limit=_number(read(controller, f"{start}limit_in_bytes")),
        hits=_number(read(controller, f"{start}failcnt")),
    )


def _cpu_1(read: Read) -> Cpu:
    stat = cgroups_v2.flat(read("cpu", "cpu.stat"))
    each, user, kernel = (
        tuple(int(word) for word in read("cpuacct", f"cpuacct.usage_percpu{kind}").split())
        for kind in ("", "_user", "_sys")
    )
    return Cpu(
        total_ns=_number(read("cpuacct", "cpuacct.usage")),
        # Not cpuacct.stat, which counts whole ticks.
        user_ns=_number(read("cpuacct", "cpuacct.usage_user")),
        kernel_ns=_number(read("cpuacct", "cpuacct.usage_sys")),
        each_ns=each,
        each_user_ns=user,
        each_kernel_ns=kernel,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled_ns=stat.get("throttled_time", 0),
    )


def _counts(read: Read, name: str) -> tuple[IoCount, ...]:
    """BFQ counts for the disks that it serves, and the throttling layer for all; the first that has something."""
    for kind in ("bfq", "throttle"):
        if found := tuple(_lines_1(read("blkio", f"blkio.{kind}.{name}"))):
            return found
    return ()


def _lines_1(text: str) -> Iterator[IoCount]:
    """Lines such as "8:0 Read 4096"; the sum over all devices, "Total 4096", is for the reader to compute."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            yield IoCount(major=int(major), minor=int(minor), kind=words[1], value=int(words[2]))


def _version_2(read: Read, sizes: list[str], oom_kills: int) -> Measurement:
    raw = cgroups_v2.flat(read("memory", "memory.stat"))
    events = cgroups_v2.flat(read("memory", "memory.events"))
    stat = cgroups_v2.flat(read("cpu", "cpu.stat"))
    memory = Memory(
        usage=_account_2(read, "memory.", events.get("max", 0)),
        swap=_account_2(read, "memory.swap.", cgroups_v2.flat(read("memory", "memory.swap.events")).get("max", 0)),
        kernel=Account(usage=raw.get("kernel", 0)),
        kernel_tcp=Account(usage=raw.get("sock", 0)),
        cache=raw.get("file", 0),
        oom_kills=oom_kills,
        raw=raw,
    )
    cpu = Cpu(
        total_ns=stat.get("usage_usec", 0) * 1000,
        user_ns=stat.get("user_usec", 0) * 1000,
        kernel_ns=stat.get("system_usec", 0) * 1000,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled_ns=stat.get("throttled_usec", 0) * 1000,
    )
    lines = list(_lines_2(read("io", "io.stat")))
    return Measurement(
        cpu=cpu,
        memory=memory,
        pids=_number(read("pids", "pids.current")),
        pids_limit=cgroups_v2.limit(read("pids", "pids.max")) or 0,
        io_bytes=tuple(count for key, count in lines if key in {"rbytes", "wbytes", "dbytes"}),
        io_operations=tuple(count for key, count in lines if key in {"rios", "wios", "dios"}),
        huge_pages={size: _huge_pages_2(read, size) for size in sizes},
    )


def _account_2(read: Read, start: str, hits: int) -> Account:
    return Account(
        usage=_number(read("memory", f"{start}current")),
        peak=_number(read("memory", f"{start}peak")),
        limit=_limit_2(read("memory", f"{start}max")),
        hits=hits,
    )


def _huge_pages_2(read: Read, size: str) -> Account:
    events = cgroups_v2.flat(read("hugetlb", f"hugetlb.{size}.events"))
    return Account(
        usage=_number(read("hugetlb", f"hugetlb.{size}.current")),
        limit=_limit_2(read("hugetlb", f"hugetlb.{size}.max")),
        hits=events.get("max", 0),
    )


def _limit_2(text: str) -> int:
    limit = cgroups_v2.limit(text)
    return NO_LIMIT if limit is None else limit


_KINDS_2: Final = {"r": "Read", "w": "Write", "d": "Discard"}


def _lines_2(text: str) -> Iterator[tuple[str, IoCount]]:
    """Lines such as "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6", with further keys of cost models."""
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            if minor and key[1:] in {"bytes", "ios"}:
                yield key, IoCount(major=int(major), minor=int(minor), kind=_KINDS_2[key[0]], value=int(value))


def _number(text: str) -> int:
    """Of a file with one number; 0 when it is not there."""
    return int(text.strip() or 0)

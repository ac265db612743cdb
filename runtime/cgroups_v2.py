"""cgroup version 2: one folder in one hierarchy. Values in, values out.

Kernel: Documentation/admin-guide/cgroup-v2. Controllers reach a folder only when every folder above it names them
in `cgroup.subtree_control`.
"""

import errno
from collections.abc import Iterator
from typing import Final

from runtime.cgroupsetting import Exists, Setting, everything, huge_pages, rates, rdma, refuse
from runtime.resources import BlockIo, Resources

CORE: Final = "cgroup"
"""What stands before the dot in files that every group has, whatever its controllers are."""

_ALWAYS: Final = ("cpu", "memory", "pids")
_SHARES_LOW, _SHARES_HIGH, _WEIGHT_HIGH = 2, 262144, 10000
_IO_LOW, _IO_HIGH = 10, 1000

REMEDIES: Final = {
    errno.EBUSY: "processes are in it, and version 2 has them in the innermost groups only; move them into a group of "
    "their own, or name another parent",
    errno.EOPNOTSUPP: "it is a threaded group; name a parent that is none (its cgroup.type says domain)",
}
"""Why the kernel does not let a folder pass its controllers on, and what to do."""


MISSING: Final = (
    "it must be in the cgroup.controllers of every group above (a hierarchy of version 1 may hold it), "
    "or remove the limit"
)
"""Where a controller does not reach the group."""


def controllers(resources: Resources) -> tuple[str, ...]:
    """The controllers that a container with these limits needs in its folder."""
    further = {
        "cpuset": resources.cpus or resources.mems,
        "io": resources.block_io is not None or resources.counts_io,
        "hugetlb": resources.huge_pages,
        "rdma": resources.rdma,
    }
    named = (file.partition(".")[0] for file, _ in resources.unified)
    wanted = (*_ALWAYS, *(name for name, needed in further.items() if needed), *named)
    return tuple(dict.fromkeys(name for name in wanted if name != CORE))


def ancestors(path: str) -> list[str]:
    """Every folder above `path` from the root on: "/orch/n1/c1" has "/", "/orch" and "/orch/n1"."""
    names = path.strip("/").split("/")
    return ["/" + "/".join(names[:depth]) for depth in range(len(names))]


def subtree_control(available: str, enabled: str, wanted: tuple[str, ...]) -> str:
    """What to write into a folder's cgroup.subtree_control, given its cgroup.controllers; "" for nothing."""
    have = set(enabled.split())
    return " ".join(f"+{name}" for name in wanted if name in available.split() and name not in have)


def weight(shares: int) -> int:
    """cpu.shares (2…262144) as cpu.weight (1…10000), as the OCI specification converts it: 1024 becomes 39."""
    shares = min(max(shares, _SHARES_LOW), _SHARES_HIGH)
    return 1 + (shares - _SHARES_LOW) * (_WEIGHT_HIGH - 1) // (_SHARES_HIGH - _SHARES_LOW)


def io_weight(weight: int) -> int:
    """blockIO.weight (10…1000) as io.weight (1…10000), as crun and runc convert it: 100 becomes 910.

    1 + (100 - 10) * 9999 / 990 = 1 + 909
    """
    return 1 + (weight - _IO_LOW) * (_WEIGHT_HIGH - 1) // (_IO_HIGH - _IO_LOW)


def settings(resources: Resources, exists: Exists = everything) -> list[Setting]:
    """The files to write, in order; raises InvalidSpec for what version 2 has not."""
    _refuse(resources)
    rows: tuple[tuple[str, object, str], ...] = (
        ("memory.max", _limit(resources.memory_limit_bytes), "memory.limit"),
        ("memory.swap.max", _swap(resources), "memory.swap"),
        ("memory.low", _limit(resources.memory_reservation_bytes), "memory.reservation"),
        ("cpu.weight", weight(resources.cpu_shares) if resources.cpu_shares else None, "cpu.shares"),
        ("cpu.max", _cpu_max(resources), "cpu.quota"),
        ("cpu.max.burst", resources.cpu_burst_us, "cpu.burst"),
        ("cpu.idle", resources.cpu_idle, "cpu.idle"),
        ("cpuset.cpus", resources.cpus or None, "cpu.cpus"),
        ("cpuset.mems", resources.mems or None, "cpu.mems"),
        ("pids.max", _limit(resources.pids_limit or -1 if resources.pids_limit is not None else None), "pids.limit"),
    )
    found = [_setting(file, str(value), field) for file, value, field in rows if value is not None]
    for size, limit in resources.huge_pages:
        found += huge_pages(size, limit, "max", exists)
    return [
        *found,
        *_block_io(resources.block_io, exists),
        *rdma(resources),
        *(_setting(file, value, f"unified[{file}]") for file, value in resources.unified),
    ]


def _setting(file: str, value: str, field: str) -> Setting:
    return Setting(file.partition(".")[0], file, value, field)


def _refuse(wanted: Resources) -> None:
    """What version 1 has and version 2 has not."""
    block_io = wanted.block_io or BlockIo()
    for field, given, remedy in (
        ("memory.swappiness", wanted.memory_swappiness is not None, "limit memory.swap instead"),
        ("memory.disableOOMKiller", wanted.oom_killer_disabled, "set process.oomScoreAdj instead"),
        ("memory.kernelTCP", wanted.memory_kernel_tcp_bytes is not None, "memory.limit counts it too"),
        ("cpu.realtimeRuntime", wanted.cpu_realtime_runtime_us is not None, "use cpu.quota"),
        ("cpu.realtimePeriod", wanted.cpu_realtime_period_us is not None, "use cpu.period"),
        ("blockIO.leafWeight", block_io.leaf_weight is not None or block_io.device_leaf_weights, "use weight"),
        ("network.classID", wanted.network_class is not None, "let the firewall match the cgroup's path"),
        ("network.priorities", wanted.network_priorities, "let the firewall match the cgroup's path"),
    ):
        if given:
            raise refuse(field, f"is cgroup v1's, and this machine has v2; remove it: {remedy}")


def _block_io(wanted: BlockIo | None, exists: Exists) -> Iterator[Setting]:
    """BFQ has weights of its own, on the configuration's scale; without it they are those of the cost model."""
    if wanted is None:
        return
    bfq = exists("io", "io.bfq.weight")
    file = "io.bfq.weight" if bfq else "io.weight"
    if wanted.weight is not None:
        yield _setting(file, str(wanted.weight if bfq else io_weight(wanted.weight)), "blockIO.weight")
    for each in wanted.device_weights:
        value = each.value if bfq else io_weight(each.value)
        yield _setting(file, f"{each.major}:{each.minor} {value}", "blockIO.weightDevice")
    for device, (pairs, field) in _rates_by_device(wanted).items():
        yield _setting("io.max", f"{device} {' '.join(pairs)}", f"blockIO.{field}")


def _rates_by_device(wanted: BlockIo) -> dict[str, tuple[list[str], str]]:
    """One line a device: "8:0 rbps=1048576 wiops=max". The field is the first that names the device."""
    found: dict[str, tuple[list[str], str]] = {}
    for field, _, key, devices in rates(wanted):
        for each in devices:
            pairs, _ = found.setdefault(f"{each.major}:{each.minor}", ([], field))
            pairs.append(f"{key}={each.value or 'max'}")
    return found


def _limit(value: int | None) -> str | None:
    if value is None:
        return None
    return "max" if value < 0 else str(value)


def _swap(resources: Resources) -> str | None:
    """Swap alone: the specification counts memory and swap together. limit 100, swap 150 → memory.swap.max 50."""
    swap, memory = resources.memory_swap_bytes, resources.memory_limit_bytes
    if swap is None:
        return None
    if swap < 0:
        return "max"
    if memory is None or memory < 0:
        raise refuse("memory.swap", "needs memory.limit on cgroup v2")
    if swap < memory:
        raise refuse("memory.swap", f"{swap} is below memory.limit {memory}")
    return str(swap - memory)


def _cpu_max(resources: Resources) -> str | None:
    quota, period = resources.cpu_quota_us, resources.cpu_period_us
    if quota is None and period is None:
        return None
    spent = "max" if quota is None or quota <= 0 else str(quota)
    return spent if period is None else f"{spent} {period}"


def limit(text: str) -> int | None:
    """A file that holds a number or `max`; None for no limit, and where the file is not there."""
    return None if text.strip() in {"", "max"} else int(text)


def flat(text: str) -> dict[str, int]:
    """A flat-keyed file such as cpu.stat and memory.events."""
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}

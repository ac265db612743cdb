"""cgroup version 2: one folder in one hierarchy. Values in, values out.

Kernel: Documentation/admin-guide/cgroup-v2. Controllers reach a folder only when every folder above it names them
in `cgroup.subtree_control`.
"""

import errno
from typing import Final

from runtime import errors
from runtime.resources import Resources

Setting = tuple[str, str]
"""A file of the folder, and what to write there."""

_ALWAYS: Final = ("cpu", "memory", "pids")
_SHARES_LOW, _SHARES_HIGH, _WEIGHT_HIGH = 2, 262144, 10000


REMEDIES: Final = {
    errno.EBUSY: "processes are in it, and version 2 has them in the innermost groups only; move them into a group of "
    "their own, or name another parent",
    errno.EOPNOTSUPP: "it is a threaded group; name a parent that is none (its cgroup.type says domain)",
}
"""Why the kernel does not let a folder pass its controllers on, and what to do."""


def missing(file: str, path: str) -> str:
    """Why a limit cannot be set whose controller the group does not have."""
    controller = file.partition(".")[0]
    return (
        f"cgroup {path}: {file} cannot be set since the {controller} controller does not reach the group; "
        "it must be in the cgroup.controllers of every group above (a hierarchy of version 1 may hold it)"
    )


def controllers(resources: Resources) -> tuple[str, ...]:
    """The controllers that a container with these limits needs in its folder."""
    return (*_ALWAYS, "cpuset") if resources.cpus or resources.mems else _ALWAYS


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


def settings(resources: Resources) -> list[Setting]:
    """The files to write, in order."""
    candidates: list[tuple[str, object]] = [
        ("memory.max", _limit(resources.memory_limit_bytes)),
        ("memory.swap.max", _swap(resources)),
        ("memory.low", resources.memory_reservation_bytes),
        ("cpu.weight", weight(resources.cpu_shares) if resources.cpu_shares else None),
        ("cpu.max", _cpu_max(resources)),
        ("cpuset.cpus", resources.cpus or None),
        ("cpuset.mems", resources.mems or None),
        ("pids.max", _limit(resources.pids_limit or -1 if resources.pids_limit is not None else None)),
    ]
    return [(file, str(value)) for file, value in candidates if value is not None]


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
        raise errors.InvalidSpec("linux.resources.memory.swap: needs memory.limit on cgroup v2")
    if swap < memory:
        raise errors.InvalidSpec(f"linux.resources.memory.swap: {swap} is below memory.limit {memory}")
    return str(swap - memory)


def _cpu_max(resources: Resources) -> str | None:
    quota, period = resources.cpu_quota_us, resources.cpu_period_us
    if quota is None and period is None:
        return None
    spent = "max" if quota is None or quota <= 0 else str(quota)
    return spent if period is None else f"{spent} {period}"


def flat(text: str) -> dict[str, int]:
    """A flat-keyed file such as cpu.stat and memory.events."""
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}

"""The limits of a container's cgroup, as the OCI specification's `linux.resources` has them."""

from dataclasses import dataclass
from typing import Final

from runtime.fields import Fields

_INT64: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """A line of the device cgroup; None stands for every number."""

    allow: bool
    kind: str  # a, c or b
    major: int | None
    minor: int | None
    access: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits of the container's cgroup; None leaves the kernel's default."""

    memory_limit_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory and swap together, as the specification has it; -1 is no limit
    memory_reservation_bytes: int | None = None
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpus: str = ""
    mems: str = ""
    pids_limit: int | None = None
    devices: tuple[DeviceRule, ...] = ()


def parse(linux: Fields) -> Resources:
    """Read `linux.resources`; raises InvalidSpec."""
    fields = linux.maybe_child("resources") or Fields({}, linux.at("resources"))
    fields.unsupported("blockIO", "hugepageLimits", "network", "rdma", "unified")
    memory = fields.maybe_child("memory") or Fields({}, fields.at("memory"))
    memory.unsupported("kernel", "kernelTCP", "swappiness", "disableOOMKiller", "useHierarchy", "checkBeforeUpdate")
    cpu = fields.maybe_child("cpu") or Fields({}, fields.at("cpu"))
    cpu.unsupported("realtimeRuntime", "realtimePeriod", "burst", "idle")
    pids = fields.maybe_child("pids") or Fields({}, fields.at("pids"))
    limits = Resources(
        memory_limit_bytes=memory.maybe_number("limit", low=-1, high=_INT64),
        memory_swap_bytes=memory.maybe_number("swap", low=-1, high=_INT64),
        memory_reservation_bytes=memory.maybe_number("reservation", low=-1, high=_INT64),
        cpu_shares=cpu.maybe_number("shares", low=0, high=262144),
        cpu_quota_us=cpu.maybe_number("quota", low=-1, high=_INT64),
        cpu_period_us=cpu.maybe_number("period", low=1000, high=1_000_000),
        cpus=cpu.text("cpus", default=""),
        mems=cpu.text("mems", default=""),
        pids_limit=pids.maybe_number("limit", low=-1, high=_INT64),
        devices=tuple(_device_rule(item) for item in fields.children("devices")),
    )
    for used in (memory, cpu, pids, fields):
        used.finish()
    return limits


def _device_rule(fields: Fields) -> DeviceRule:
    rule = DeviceRule(
        allow=fields.flag("allow"),
        kind=fields.text("type", default="a") or "a",
        major=_number_or_every(fields, "major"),
        minor=_number_or_every(fields, "minor"),
        access=fields.text("access", default="rwm") or "rwm",
    )
    fields.finish()
    if rule.kind not in {"a", "b", "c"}:
        raise fields.refuse("type", f"{rule.kind!r} must be a, b or c")
    if set(rule.access) - set("rwm"):
        raise fields.refuse("access", f"{rule.access!r} must be made of r, w and m")
    return rule


def _number_or_every(fields: Fields, name: str) -> int | None:
    number = fields.maybe_number(name, low=-1, high=2**31 - 1)
    return None if number == -1 else number

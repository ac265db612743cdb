"""The limits of a container's cgroup, as the OCI specification's `linux.resources` has them.

One rule: zero, and an empty list or object, ask for nothing, since Go programs write them for what nobody asked for.
Where zero is a limit of its own, the field says so.
"""

import re
from typing import Final, NamedTuple

from runtime import known
from runtime.fields import Fields
from runtime.values import frozen

_INT64: Final = 2**63 - 1
_UINT64: Final = 2**64 - 1
_PAGE_SIZE: Final = re.compile(r"[1-9][0-9]{0,6}[KMG]B")
_UNIFIED: Final = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+")
_UNIFIED_CORE: Final = frozenset({"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"})
"""Of the files that every group has, those that are limits; by the others the runtime governs the group."""


# Named tuples where that does as well: each dataclass costs every run of the command half a millisecond.
class DeviceRule(NamedTuple):
    """A line of the device cgroup; None stands for every number."""

    allow: bool
    kind: str  # a, c or b
    major: int | None
    minor: int | None
    access: str


class DeviceValue(NamedTuple):
    """A weight or a rate of one block device. A rate of 0 takes the limit away."""

    major: int
    minor: int
    value: int


class BlockIo(NamedTuple):
    """`blockIO`: weights from 10 to 1000, rates in bytes or operations a second."""

    weight: int | None = None
    leaf_weight: int | None = None
    device_weights: tuple[DeviceValue, ...] = ()
    device_leaf_weights: tuple[DeviceValue, ...] = ()
    read_bps: tuple[DeviceValue, ...] = ()
    write_bps: tuple[DeviceValue, ...] = ()
    read_iops: tuple[DeviceValue, ...] = ()
    write_iops: tuple[DeviceValue, ...] = ()


class RdmaLimit(NamedTuple):
    """What a container may take of one RDMA device; None is no limit."""

    device: str
    handles: int | None
    objects: int | None


@frozen
class Resources:
    """Limits of the container's cgroup; None leaves the kernel's default."""

    memory_limit_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory and swap together, as the specification has it; -1 is no limit
    memory_reservation_bytes: int | None = None
    memory_kernel_tcp_bytes: int | None = None
    memory_swappiness: int | None = None  # 0 is a value: swap only to avoid a kill
    memory_hierarchy: bool = False
    memory_check: bool = False  # an update below what is in use is refused
    oom_killer_disabled: bool = False
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_burst_us: int | None = None  # 0 is a value: no burst any more
    cpu_realtime_runtime_us: int | None = None
    cpu_realtime_period_us: int | None = None
    cpu_idle: int | None = None  # 0 is a value: no longer idle
    cpus: str = ""
    mems: str = ""
    pids_limit: int | None = None
    block_io: BlockIo | None = None
    huge_pages: tuple[tuple[str, int], ...] = ()  # size such as 2MB, and bytes; 0 is a value: none at all
    network_class: int | None = None
    network_priorities: tuple[tuple[str, int], ...] = ()  # interface and priority
    rdma: tuple[RdmaLimit, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()  # file and content
    devices: tuple[DeviceRule, ...] = ()
    counts_io: bool = False  # whether its block I/O is counted, for whoever reads that; not in config.json


def parse(linux: Fields) -> Resources:
    """Read `linux.resources`; raises InvalidSpec."""
    return known.read(linux.maybe_child("resources") or Fields({}, linux.at("resources")), _parse)


def _parse(fields: Fields) -> Resources:
    memory, cpu, pids, network = (
        fields.maybe_child(name) or Fields({}, fields.at(name)) for name in ("memory", "cpu", "pids", "network")
    )
    _refuse_kernel_memory(memory)
    limits = Resources(
        memory_limit_bytes=_number(memory, "limit", low=-1, high=_INT64),
        memory_swap_bytes=_number(memory, "swap", low=-1, high=_INT64),
        memory_reservation_bytes=_number(memory, "reservation", low=-1, high=_INT64),
        memory_kernel_tcp_bytes=_number(memory, "kernelTCP", low=-1, high=_INT64),
        memory_swappiness=memory.maybe_number("swappiness", low=0, high=100),
        memory_hierarchy=memory.flag("useHierarchy"),
        memory_check=memory.flag("checkBeforeUpdate"),
        oom_killer_disabled=memory.flag("disableOOMKiller"),
        cpu_shares=_number(cpu, "shares", low=1, high=262144),
        cpu_quota_us=_number(cpu, "quota", low=-1, high=_INT64),
        cpu_period_us=_number(cpu, "period", low=1000, high=1_000_000),
        cpu_burst_us=cpu.maybe_number("burst", low=0, high=_INT64),
        cpu_realtime_runtime_us=_number(cpu, "realtimeRuntime", low=-1, high=_INT64),
        cpu_realtime_period_us=_number(cpu, "realtimePeriod", low=1, high=_INT64),
        cpu_idle=cpu.maybe_number("idle", low=0, high=1),
        cpus=cpu.text("cpus", default=""),
        mems=cpu.text("mems", default=""),
        pids_limit=_number(pids, "limit", low=-1, high=_INT64),
        block_io=_block_io(fields),
        huge_pages=tuple(_huge_pages(item) for item in fields.children("hugepageLimits")),
        network_class=_number(network, "classID", low=1, high=2**32 - 1),
        network_priorities=tuple(_priority(item) for item in network.children("priorities")),
        rdma=_rdma(fields),
        unified=_unified(fields),
        devices=tuple(_device_rule(item) for item in fields.children("devices")),
    )
    for used in (memory, cpu, pids, network, fields):
        used.finish()
    return limits


def _number(fields: Fields, name: str, *, low: int, high: int) -> int | None:
    """A number for which zero asks for nothing."""
    value = fields.maybe_number(name, low=min(low, 0), high=high)
    if value and value < low:
        raise fields.refuse(name, f"must be between {low} and {high}, not {value}")
    return value or None


def _refuse_kernel_memory(memory: Fields) -> None:
    """A limit that does nothing is worse than none."""
    if (memory.maybe_number("kernel", low=-1, high=_INT64) or -1) != -1:
        raise memory.refuse("kernel", "has no effect since Linux 5.16; remove it: memory.limit counts it too")


def _block_io(fields: Fields) -> BlockIo | None:
    given = fields.maybe_child("blockIO")
    if given is None:
        return None
    devices = [_weights(item) for item in given.children("weightDevice")]
    wanted = BlockIo(
        weight=_number(given, "weight", low=10, high=1000),
        leaf_weight=_number(given, "leafWeight", low=10, high=1000),
        device_weights=tuple(weight for weight, _ in devices if weight is not None),
        device_leaf_weights=tuple(weight for _, weight in devices if weight is not None),
        read_bps=_rates(given, "throttleReadBpsDevice"),
        write_bps=_rates(given, "throttleWriteBpsDevice"),
        read_iops=_rates(given, "throttleReadIOPSDevice"),
        write_iops=_rates(given, "throttleWriteIOPSDevice"),
    )
    given.finish()
    return None if wanted == BlockIo() else wanted


def _weights(fields: Fields) -> tuple[DeviceValue | None, DeviceValue | None]:
    """The weight and the leaf weight of one device."""
    numbers = _device(fields)
    found = (_number(fields, name, low=10, high=1000) for name in ("weight", "leafWeight"))
    weight, leaf = (DeviceValue(major=numbers[0], minor=numbers[1], value=value) if value else None for value in found)
    fields.finish()
    return weight, leaf


def _rates(given: Fields, name: str) -> tuple[DeviceValue, ...]:
    return tuple(_rate(item) for item in given.children(name))


def _rate(fields: Fields) -> DeviceValue:
    major, minor = _device(fields)
    rate = DeviceValue(major=major, minor=minor, value=fields.number("rate", low=0, high=_UINT64, default=0))
    fields.finish()
    return rate


def _device(fields: Fields) -> tuple[int, int]:
    major, minor = (fields.number(name, low=0, high=2**31 - 1, default=0) for name in ("major", "minor"))
    return major, minor


def _huge_pages(fields: Fields) -> tuple[str, int]:
    size, limit = fields.text("pageSize"), fields.number("limit", low=0, high=_UINT64)
    if not _PAGE_SIZE.fullmatch(size):
        raise fields.refuse("pageSize", f"{size!r} must be a size such as 64KB, 2MB or 1GB")
    fields.finish()
    return size, limit


def _priority(fields: Fields) -> tuple[str, int]:
    name, priority = fields.text("name"), fields.number("priority", low=0, high=2**32 - 1, default=0)
    if not name or len(name.encode()) > 15 or "/" in name or any(letter.isspace() for letter in name):
        raise fields.refuse("name", f"{name!r} is no name of a network interface")
    fields.finish()
    return name, priority


def _rdma(fields: Fields) -> tuple[RdmaLimit, ...]:
    given = fields.maybe_child("rdma")
    if given is None:
        return ()
    return tuple(_rdma_limit(given, name) for name in given.names())


def _rdma_limit(given: Fields, name: str) -> RdmaLimit:
    if not name or any(letter.isspace() for letter in name):
        raise given.refuse(name, "is no name of an RDMA device; /sys/class/infiniband lists them")
    fields = given.child(name)
    handles, objects = (fields.maybe_number(item, low=0, high=2**32 - 1) for item in ("hcaHandles", "hcaObjects"))
    fields.finish()
    return RdmaLimit(device=name, handles=handles, objects=objects)


def _unified(fields: Fields) -> tuple[tuple[str, str], ...]:
    """Names of files in the container's own folder, and of no other."""
    wanted = fields.mapping("unified")
    for name in wanted:
        at = f"unified[{name}]"
        if not _UNIFIED.fullmatch(name):
            raise fields.refuse(at, "must be a file of the cgroup's folder, such as memory.high")
        if name.startswith("cgroup.") and name not in _UNIFIED_CORE:
            raise fields.refuse(
                at, f"is the runtime's own; of these files {', '.join(sorted(_UNIFIED_CORE))} are yours"
            )
    return tuple(wanted.items())


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

"""How the kernel is to treat a process: its scheduling, its input and output, its processors, memory and personality.

What one field alone can get wrong is refused here; what depends on the machine, the kernel says (`treatment`).
"""

from collections.abc import Mapping
from typing import Final

from runtime.fields import Fields
from runtime.values import frozen

IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
POLICIES: Final = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS: Final = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
}
DOMAINS: Final = {"LINUX": 0x0000, "LINUX32": 0x0008}
MEMORY_MODES: Final = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS: Final = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
MAX_LISTED: Final = 8191
"""The highest number in a list of processors or memory nodes; no kernel is built for more."""

_NO_VALUE: Final = frozenset({"SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"})
_REAL_TIME: Final = frozenset({"SCHED_FIFO", "SCHED_RR"})
_NICE: Final = frozenset({"SCHED_OTHER", "SCHED_BATCH"})
_WITHOUT_NODES: Final = frozenset({"MPOL_DEFAULT", "MPOL_LOCAL"})


@frozen
class IoPriority:
    """ioprio_set(2); 0 is the most urgent of a class's eight levels."""

    kind: str
    level: int = 0


@frozen
class Scheduler:
    """sched_setattr(2)."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: int = 0
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0

    @property
    def is_raised(self) -> bool:
        """Whether it takes the host's privileges to get it."""
        return self.policy in {*_REAL_TIME, "SCHED_DEADLINE"} or self.nice < 0

    @property
    def outlives_fork(self) -> bool:
        """Whether a child has it as well."""
        return self.policy != "SCHED_DEADLINE" and not self.flags & SCHEDULER_FLAGS["SCHED_FLAG_RESET_ON_FORK"]


@frozen
class CpuAffinity:
    """The processors of an exec's process, before it is in the container's cgroup and after. Empty: as it comes."""

    initial: frozenset[int] = frozenset()
    final: frozenset[int] = frozenset()


@frozen
class MemoryPolicy:
    """set_mempolicy(2)."""

    mode: str
    flags: int = 0
    nodes: frozenset[int] = frozenset()


def parse_io_priority(process: Fields) -> IoPriority | None:
    """Read `process.ioPriority`; raises InvalidSpec."""
    fields = process.maybe_child("ioPriority")
    if fields is None:
        return None
    found = IoPriority(
        kind=_word(fields, "class", IO_CLASSES), level=fields.number("priority", low=0, high=7, default=0)
    )
    fields.finish()
    return found


def parse_scheduler(process: Fields) -> Scheduler | None:
    """Read `process.scheduler`; raises InvalidSpec."""
    fields = process.maybe_child("scheduler")
    if fields is None:
        return None
    policy = _word(fields, "policy", POLICIES)
    found = Scheduler(
        policy=policy,
        nice=fields.number("nice", low=-20, high=19, default=0),
        priority=fields.number("priority", low=0, high=99, default=0),
        flags=_scheduler_flags(fields),
        runtime_ns=fields.number("runtime", low=0, high=2**63 - 1, default=0),
        deadline_ns=fields.number("deadline", low=0, high=2**63 - 1, default=0),
        period_ns=fields.number("period", low=0, high=2**63 - 1, default=0),
    )
    fields.finish()
    if found.nice and policy not in _NICE:
        raise fields.refuse("nice", f"is for {' and '.join(sorted(_NICE))}; {policy} knows no niceness")
    if bool(found.priority) != (policy in _REAL_TIME):
        raise fields.refuse("priority", f"must be 1 to 99 for SCHED_FIFO and SCHED_RR and 0 for others, as {policy}")
    for name, value in (("runtime", found.runtime_ns), ("deadline", found.deadline_ns), ("period", found.period_ns)):
        if value and policy != "SCHED_DEADLINE":
            raise fields.refuse(name, f"is for SCHED_DEADLINE only, not for {policy}")
    return found


def _scheduler_flags(fields: Fields) -> int:
    for index, word in enumerate(words := fields.texts("flags")):
        if word in _NO_VALUE:
            raise fields.refuse(
                f"flags[{index}]", f"{word} needs a value, for which the specification has no field; remove it"
            )
    return _mask(fields, "flags", words, SCHEDULER_FLAGS)


def parse_affinity(process: Fields) -> CpuAffinity:
    """Read `process.execCPUAffinity`; raises InvalidSpec."""
    fields = process.maybe_child("execCPUAffinity")
    if fields is None:
        return CpuAffinity()
    found = CpuAffinity(initial=_numbers(fields, "initial"), final=_numbers(fields, "final"))
    fields.finish()
    return found


def parse_personality(linux: Fields) -> int | None:
    """Read `linux.personality` as personality(2) takes it; raises InvalidSpec."""
    fields = linux.maybe_child("personality")
    if fields is None:
        return None
    domain = DOMAINS[_word(fields, "domain", DOMAINS)]
    if fields.texts("flags"):
        raise fields.refuse("flags", "the specification names no flag yet; remove it")
    fields.finish()
    return domain


def parse_memory_policy(linux: Fields) -> MemoryPolicy | None:
    """Read `linux.memoryPolicy`; raises InvalidSpec."""
    fields = linux.maybe_child("memoryPolicy")
    if fields is None:
        return None
    mode = _word(fields, "mode", MEMORY_MODES)
    flags = _mask(fields, "flags", fields.texts("flags"), MEMORY_FLAGS)
    found = MemoryPolicy(mode=mode, flags=flags, nodes=_numbers(fields, "nodes"))
    fields.finish()
    if found.nodes and mode in _WITHOUT_NODES:
        raise fields.refuse("nodes", f"must be left out with {mode}")
    if not found.nodes and mode not in {*_WITHOUT_NODES, "MPOL_PREFERRED"}:
        raise fields.refuse("nodes", f"is required with {mode}")
    return found


def _word(fields: Fields, name: str, known: Mapping[str, int]) -> str:
    word = fields.text(name)
    if word not in known:
        raise fields.refuse(name, f"{word!r} is not known; use one of {', '.join(known)}")
    return word


def _mask(fields: Fields, name: str, words: tuple[str, ...], known: Mapping[str, int]) -> int:
    mask = 0
    for index, word in enumerate(words):
        if word not in known:
            raise fields.refuse(f"{name}[{index}]", f"{word!r} is not known; use {', '.join(known)}")
        mask |= known[word]
    return mask


def _numbers(fields: Fields, name: str) -> frozenset[int]:
    """A list such as "0-3,7"; empty when it is absent."""
    text = fields.text(name, default="")
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) <= len(str(MAX_LISTED)) for end in ends):
            raise fields.refuse(name, f"{text!r} must be numbers and ranges such as 0-3,7")
        low, high = (int(end) for end in ends)
        if low > high or high > MAX_LISTED:
            raise fields.refuse(name, f"{part!r} must be a rising range, up to {MAX_LISTED}")
        found.update(range(low, high + 1))
    return frozenset(found)

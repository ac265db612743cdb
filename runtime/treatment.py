"""Ask the kernel for the treatment that the configuration wants for a process (`spec.treatment`).

Two rules. What takes the host's privileges is asked for before a user namespace takes them away, and the rest as late
as possible, so that the set-up itself is neither slowed down nor in anybody's way. And a refusal of the kernel becomes
one error with the field's name and what to do.
"""

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

from runtime import errors, syscalls
from runtime.spec import Process, Spec
from runtime.spec import treatment as words
from runtime.spec.treatment import MemoryPolicy, Scheduler

_X86: Final = os.uname().machine == "x86_64"
_IOPRIO_SET: Final = 251 if _X86 else 30
_SCHED_SETATTR: Final = 314 if _X86 else 274
_SET_MEMPOLICY: Final = 238 if _X86 else 237
_PERSONALITY: Final = 135 if _X86 else 92
_IOPRIO_WHO_PROCESS, _IOPRIO_CLASS_SHIFT = 1, 13
_SCHED_ATTR: Final = struct.Struct("IIQiIQQQ")

_SCHEDULER_REMEDIES: Final = {
    errno.EPERM: "it takes CAP_SYS_NICE on the host, and where the kernel has CONFIG_RT_GROUP_SCHED a cgroup with a "
    "real-time budget (linux.resources.cpu.realtimeRuntime); or use SCHED_OTHER",
    errno.EBUSY: "its processors have no such bandwidth left; ask for less runtime, or a longer period",
    errno.EINVAL: "see the bounds of these values in sched_setattr(2)",
}


def ask_early(process: Process, *, enters_user_namespace: bool) -> None:
    """What the host's privileges are needed for."""
    _set_io_priority(process)
    wanted = process.scheduler
    if enters_user_namespace and wanted is not None and wanted.is_raised and wanted.outlives_fork:
        _schedule(wanted)


def ask_late(spec: Spec, process: Process) -> None:
    """The rest, in the container, with the privileges of its root."""
    if spec.personality is not None:
        with errors.step("linux.personality"):
            syscalls.call("personality", _PERSONALITY, spec.personality)
    if spec.memory_policy is not None:
        _set_memory_policy(spec.memory_policy)
    if process.scheduler is not None:
        _schedule(process.scheduler)


@contextlib.contextmanager
def entering_group(process: Process) -> Iterator[None]:
    """Explain why a cgroup does not take a process whose scheduling was raised before."""
    try:
        yield
    except errors.SetupFailed as error:
        if error.errno != errno.EINVAL or process.scheduler is None or not process.scheduler.is_raised:
            raise
        raise _refused(process.scheduler, OSError(errno.EPERM, "refused by the container's cgroup")) from error


def run_on(field: str, processors: frozenset[int]) -> None:
    """sched_setaffinity(2); nothing asked for is nothing changed."""
    if not processors:
        return
    try:
        os.sched_setaffinity(0, processors)
    except OSError as error:
        here = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        message = f"process.execCPUAffinity.{field}: {error.strerror}; this process may run on {here}"
        raise errors.SetupFailed(message, step="process.execCPUAffinity", errno=error.errno or 0) from error


def _set_io_priority(process: Process) -> None:
    wanted = process.io_priority
    if wanted is None:
        return
    value = words.IO_CLASSES[wanted.kind] << _IOPRIO_CLASS_SHIFT | wanted.level
    try:
        syscalls.call("ioprio_set", _IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, value)
    except OSError as error:
        message = f"process.ioPriority: {wanted.kind} is refused: {error.strerror}; "
        message += "IOPRIO_CLASS_RT takes CAP_SYS_NICE on the host, so use IOPRIO_CLASS_BE"
        raise errors.SetupFailed(message, step="process.ioPriority", errno=error.errno or 0) from error


def _schedule(wanted: Scheduler) -> None:
    attributes = _SCHED_ATTR.pack(
        _SCHED_ATTR.size,
        words.POLICIES[wanted.policy],
        wanted.flags,
        wanted.nice,
        wanted.priority,
        wanted.runtime_ns,
        wanted.deadline_ns,
        wanted.period_ns,
    )
    try:
        syscalls.call("sched_setattr", _SCHED_SETATTR, 0, attributes, 0)
    except OSError as error:
        raise _refused(wanted, error) from error


def _refused(wanted: Scheduler, error: OSError) -> errors.SetupFailed:
    why = _SCHEDULER_REMEDIES.get(error.errno or 0, "see sched_setattr(2)")
    message = f"process.scheduler: {wanted.policy} is refused: {error.strerror}; {why}"
    return errors.SetupFailed(message, step="process.scheduler", errno=error.errno or 0)


def _set_memory_policy(wanted: MemoryPolicy) -> None:
    """The kernel takes one bit less than it is told (set_mempolicy(2), "maxnode")."""
    mode = words.MEMORY_MODES[wanted.mode] | wanted.flags
    mask = sum(1 << node for node in wanted.nodes)
    size_bytes = (words.MAX_LISTED + 1) // 8
    nodes = mask.to_bytes(size_bytes, "little") if wanted.nodes else None
    highest = max(wanted.nodes, default=-1)
    try:
        syscalls.call("set_mempolicy", _SET_MEMPOLICY, mode, nodes, highest + 2 if wanted.nodes else 0)
    except OSError as error:
        message = f"linux.memoryPolicy: {wanted.mode} is refused: {error.strerror}; this kernel may not know the mode "
        message += "or flag, or the machine, or linux.resources.cpu.mems, may not have the nodes"
        raise errors.SetupFailed(message, step="linux.memoryPolicy", errno=error.errno or 0) from error

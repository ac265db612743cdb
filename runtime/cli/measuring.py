"""A container's statistics in the form of `runc events`, as its callers parse them. What is unknown is zero."""

from typing import Any

from runtime import control, measurement
from runtime.measurement import Account, IoCount, Measurement
from runtime.state import State


def event(known: State) -> dict[str, Any]:
    """One measurement."""
    return {"type": "stats", "id": known.id, "data": data(measurement.measure(control.group(known)))}


def data(measured: Measurement) -> dict[str, Any]:
    """The measurement in runc's words."""
    pids = {"current": measured.pids}
    if measured.pids_limit:
        pids["limit"] = measured.pids_limit
    return {
        "cpu": _cpu(measured.cpu),
        "memory": _memory(measured.memory),
        "pids": pids,
        "blkio": {
            "ioServiceBytesRecursive": [_io(count) for count in measured.io_bytes],
            "ioServicedRecursive": [_io(count) for count in measured.io_operations],
        },
        "hugetlb": {
            size: {"usage": pages.usage, "max": pages.peak, "failcnt": pages.hits}
            for size, pages in measured.huge_pages.items()
        },
    }


def _cpu(cpu: measurement.Cpu) -> dict[str, Any]:
    return {
        "usage": {
            "total": cpu.total_ns,
            "percpu": list(cpu.each_ns),
            "percpu_kernel": list(cpu.each_kernel_ns),
            "percpu_user": list(cpu.each_user_ns),
            "kernel": cpu.kernel_ns,
            "user": cpu.user_ns,
        },
        "throttling": {
            "periods": cpu.periods,
            "throttledPeriods": cpu.throttled_periods,
            "throttledTime": cpu.throttled_ns,
        },
    }


def _memory(memory: measurement.Memory) -> dict[str, Any]:
    return {
        "cache": memory.cache,
        "usage": _account(memory.usage),
        "swap": _account(memory.swap),
        "kernel": _account(memory.kernel),
        "kernelTCP": _account(memory.kernel_tcp),
        "raw": memory.raw,
        "oomKills": memory.oom_kills,  # ours: runc has no word for it
    }


def _account(account: Account) -> dict[str, int]:
    return {"limit": account.limit, "usage": account.usage, "max": account.peak, "failcnt": account.hits}


def _io(count: IoCount) -> dict[str, Any]:
    return {"major": count.major, "minor": count.minor, "op": count.kind, "value": count.value}

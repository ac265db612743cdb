"""A container's statistics in the form of `runc events`, as its callers parse them. What is unknown is zero."""

from typing import Any, Final

from runtime import control
from runtime.state import State

_NO_LIMIT: Final = 2**63 - 4096
"""What version 1 tells, and runc's callers expect, where there is no limit."""


def event(known: State) -> dict[str, Any]:
    """One measurement."""
    stats = control.group(known).stats()
    usage = {
        "usage": stats.memory_bytes,
        "max": stats.memory_peak_bytes or 0,
        "limit": _NO_LIMIT if stats.memory_limit_bytes is None else stats.memory_limit_bytes,
        "failcnt": 0,
    }
    data = {
        "cpu": {"usage": {"total": stats.cpu_usage_ns, "kernel": 0, "user": 0}, "throttling": {}},
        "memory": {"usage": usage, "oomKills": stats.oom_kills},
        "pids": {"current": stats.pids},
        "blkio": {},
    }
    return {"type": "stats", "id": known.id, "data": data}

"""Reads what this node has counted: its machine, its containers, and what services carry.

One rule: nothing runs here between two questions. The kernel counts all the time; whoever wants a rate asks twice.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from agent import ports
from agent.adapters import rules
from agent.errors import Temporary
from agent.node import memory_of
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb

_NANOSECONDS = 1_000_000_000
_IDLE = (3, 4)
"""The columns of a line of /proc/stat in which nothing is done: idle, and idle until a disk answers."""
_COLUMNS = 8
"""Those behind them, of guests, are in the first two already."""


class NodeMeter:
    """A Meter of this machine. `running` tells which tasks have containers that run, and which these are."""

    def __init__(self, runtime: ports.Runtime, running: Callable[[], Mapping[str, Sequence[str]]]) -> None:
        self._runtime = runtime
        self._running = running

    async def read(self, request: dpb.NodeUsageRequest) -> dpb.NodeCounters:
        found = dpb.NodeCounters(usage=_machine())
        if request.tasks:
            found.usage.tasks.extend(await self._tasks())
        if request.services:
            found.traffic.extend(await asyncio.to_thread(_traffic))
        return found

    async def _tasks(self) -> list[cpb.TaskUsage]:
        running = self._running()
        used = await self._runtime.usage([one for members in running.values() for one in members])
        there = {task_id: [used[one] for one in members if one in used] for task_id, members in running.items()}
        return [_sum(task_id, parts) for task_id, parts in there.items() if parts]


def _sum(task_id: str, used: Iterable[ports.Usage]) -> cpb.TaskUsage:
    """What the containers of a task use together."""
    total = cpb.TaskUsage(task_id=task_id)
    for one in used:
        total.cpu_ns += one.cpu_ns
        total.memory += one.memory_bytes
        total.processes += max(0, one.pids)
    return total


def _machine() -> cpb.NodeUsage:
    memory = memory_of(Path("/proc/meminfo").read_text())
    return cpb.NodeUsage(
        at_ns=time.monotonic_ns(),
        cpu_ns=busy_ns(Path("/proc/stat").read_text(), ticks_per_second=os.sysconf("SC_CLK_TCK")),
        processors=os.cpu_count() or 1,
        memory=memory["MemTotal"] - memory["MemAvailable"],
        memory_total=memory["MemTotal"],
    )


def busy_ns(stat: str, *, ticks_per_second: int) -> int:
    """How long all processors have been busy: the first line of proc_stat(5), in ticks.

    `cpu 10 0 5 900 85 0 0 0 0 0`, of 100 a second, are 0.15 s.
    """
    name, *columns = stat.partition("\n")[0].split()
    if name != "cpu":
        raise ValueError("/proc/stat does not begin with all processors")
    busy = sum(int(ticks) for place, ticks in enumerate(columns[:_COLUMNS]) if place not in _IDLE)
    return busy * _NANOSECONDS // ticks_per_second


def _traffic() -> list[dpb.TrafficCounter]:
    """Those that have counted something. Raises Temporary."""
    try:
        counted = rules.counters()
    except (OSError, subprocess.SubprocessError) as error:
        raise Temporary(f"its counters cannot be read: {error}", reason="NetworkFailed") from error
    return [
        dpb.TrafficCounter(
            key=key,
            connections=traffic.requests,
            refused=traffic.refused,
            packets=traffic.packets,
            bytes=traffic.bytes,
        )
        for key, traffic in counted.items()
        if traffic.requests or traffic.refused
    ]

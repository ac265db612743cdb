"""What a machine tells of itself, as numbers."""

from collections.abc import Collection, Mapping
from typing import cast

import pytest

from agent import ports
from agent.adapters import meter
from agent.node import memory_of
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support.aio import bounded


class Used:
    """A runtime that knows three containers, and is asked once."""

    def __init__(self) -> None:
        self.asked = 0

    async def usage(self, container_ids: Collection[str]) -> Mapping[str, ports.Usage]:
        self.asked += 1
        known = ("web-1", "web-1.proxy", "db-1")
        return {one: ports.Usage(cpu_ns=5, memory_bytes=100, pids=2) for one in container_ids if one in known}


@bounded(10)
async def test_a_task_is_all_of_its_containers() -> None:
    """What has just ended counts for nothing."""
    runtime = Used()
    running = {"web-1": ["web-1", "web-1.proxy"], "db-1": ["db-1"], "gone-1": ["gone-1"]}
    counters = await meter.NodeMeter(cast("ports.Runtime", runtime), lambda: running).read(
        dpb.NodeUsageRequest(tasks=True)
    )
    told = [(one.task_id, one.cpu_ns, one.memory, one.processes) for one in counters.usage.tasks]
    assert told == [("web-1", 10, 200, 4), ("db-1", 5, 100, 2)]
    assert runtime.asked == 1


def test_a_processor_is_busy_with_everything_but_waiting() -> None:
    """Guests are in the first columns already; older kernels have fewer columns."""
    assert meter.busy_ns("cpu  10 0 5 900 85 0 0 0 7 0\ncpu0 1 1\n", ticks_per_second=100) == 150_000_000
    assert meter.busy_ns("cpu 10 0 5 900\n", ticks_per_second=100) == 150_000_000
    with pytest.raises(ValueError, match="all processors"):
        meter.busy_ns("intr 5\n", ticks_per_second=100)


def test_only_sizes_are_sizes() -> None:
    assert memory_of("MemTotal: 16 kB\nHugePages_Total:   3\nMemFree:\t1 kB\n") == {"MemTotal": 16384, "MemFree": 1024}

"""What a machine tells of itself, as numbers."""

import pytest

from agent.adapters import meter
from agent.node import memory_of


def test_a_processor_is_busy_with_everything_but_waiting() -> None:
    """Guests are in the first columns already; older kernels have fewer columns."""
    assert meter.busy_ns("cpu  10 0 5 900 85 0 0 0 7 0\ncpu0 1 1\n", ticks_per_second=100) == 150_000_000
    assert meter.busy_ns("cpu 10 0 5 900\n", ticks_per_second=100) == 150_000_000
    with pytest.raises(ValueError, match="all processors"):
        meter.busy_ns("intr 5\n", ticks_per_second=100)


def test_only_sizes_are_sizes() -> None:
    assert memory_of("MemTotal: 16 kB\nHugePages_Total:   3\nMemFree:\t1 kB\n") == {"MemTotal": 16384, "MemFree": 1024}

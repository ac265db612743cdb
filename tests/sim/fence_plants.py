"""Bugs in fences that somebody might really make, to be planted as those in `plants`."""

from agent import lease
from controlplane.core import nodes
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.planting import Plant, instead

NEVER_TWO = frozenset({"never two"})


def _as_others(task: pb.Task) -> int:
    """Fenced tasks are given up as soon as their node is called lost for others."""
    return task.fence // 10


def _for_ever(self: lease.Lease, fence_ms: int) -> float:
    """A container that has been started is let live."""
    return self._clock_s() + 10 * fence_ms


FENCE_PLANTS = (
    Plant(
        name="fenced tasks are given up before they are dead",
        bug=instead(nodes, "fenced_for_ms", _as_others),
        caught_by=NEVER_TWO,
        hint=10_002,
    ),
    Plant(
        name="nobody kills fenced tasks",
        bug=instead(lease.Lease, "until_s", _for_ever),
        caught_by=NEVER_TWO,
        hint=10_010,
    ),
)

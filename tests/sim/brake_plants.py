"""Bugs in giving up the tasks of lost nodes that somebody might really make, to be planted as those in `plants`."""

from controlplane.core import nodes, plan
from protos import losses
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.planting import Plant, instead

_right_telling = nodes.tell_brake


def _tell_and_never_take_back(node: pb.Node, *, is_braked: bool) -> plan.Plan:
    return plan.NOTHING if node.status.held else _right_telling(node, is_braked=is_braked)


def _once_and_for_ever(node: pb.Node) -> bool:
    """As if the wish meant the node, and not this loss of it."""
    return losses.is_lost(node) and node.spec.lost_since > 0


BRAKE_PLANTS = (
    Plant(
        name="tasks are given up although most nodes vanished together",
        bug=instead(nodes, "braked", lambda *_: False),
        caught_by=frozenset({"brake"}),
        hint=5,
    ),
    Plant(
        name="a node that was lost for good once is so for ever",
        bug=instead(losses, "is_final", _once_and_for_ever),
        caught_by=frozenset({"brake"}),
        hint=47,
    ),
    Plant(
        name="a node that the brake held says so for ever",
        bug=instead(nodes, "tell_brake", _tell_and_never_take_back),
        caught_by=frozenset({"whole at rest"}),
        hint=2,
    ),
)

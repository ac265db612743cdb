"""Bugs around agents that go in order, to be planted as those in `plants`."""

from collections.abc import Mapping
from typing import Any

from controlplane.core import nodes, plan
from controlplane.dispatcher.sessions import Sessions
from protos import absence
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.absence_rules import LATE, WAITED
from tests.sim.planting import Plant, instead

_right_give_up = nodes.give_up
_right_absent = nodes._absent


def _give_up_as_any_other(node: pb.Node, *others: Any, **more: Any) -> plan.Plan:
    """What its agent has said is not looked at."""
    unexpected = plan.copy(node)
    unexpected.status.expected_by = 0
    return _right_give_up(unexpected, *others, **more)


def _wait_for_ever(node: pb.Node, *others: Any) -> tuple[plan.Change | None, int | None]:
    """Who has said that it comes back will come."""
    return (None, None) if absence.is_expected(node) else _right_absent(node, *others)


def _hear_nothing(_self: Sessions) -> Mapping[str, int]:
    """A session that has ended has nothing more to say."""
    return {}


ABSENCE_PLANTS = (
    Plant(
        name="an agent that is expected back is given up like any other",
        bug=instead(nodes, "give_up", _give_up_as_any_other),
        caught_by=frozenset({WAITED}),
        hint=30_002,
    ),
    Plant(
        name="an agent that is late is waited for",
        bug=instead(nodes, "_absent", _wait_for_ever),
        caught_by=frozenset({LATE}),
        hint=30_000,
    ),
    Plant(
        name="what an agent says when it goes is forgotten",
        bug=instead(Sessions, "announced", _hear_nothing),
        caught_by=frozenset({WAITED}),
        hint=30_000,
    ),
)

"""Bugs in drains that somebody might really make, to be planted as those in `plants`."""

from controlplane.core import disruption, leaving, rebalance
from tests.sim.planting import Plant, instead

DISRUPTION_PLANTS = (
    Plant(
        name="tasks of a drained node leave at once",
        bug=instead(leaving, "_at_once", lambda *_: leaving.DRAINED),
        caught_by=frozenset({"nothing is lost", "disruption"}),
        hint=1,
    ),
    Plant(
        name="what a service can do without is what it has",
        bug=instead(disruption, "allowed", lambda _service, members: len(members)),
        caught_by=frozenset({"disruption"}),
        hint=95,
    ),
    Plant(
        name="nobody looks whether services are spread",
        bug=instead(rebalance, "moves", lambda _situation: ([], None)),
        caught_by=frozenset({"spread again"}),
        hint=1,
    ),
    Plant(
        name="one that moves needs to gain nothing by it",
        bug=instead(rebalance, "WORTH_IT", -1),
        caught_by=frozenset({"idle is idle", "whole at rest", "pace", "no doubles"}),
        hint=4,
    ),
)

"""The simulation finds bugs: each plant breaks a rule that was meant for it within a bounded number of seeds."""

import pytest

from tests.sim.families import FAMILIES
from tests.sim.plants import PLANTS, Plant
from tests.sim.scenario import Result, simulate

SEEDS = 200

pytestmark = pytest.mark.slow  # a hint grows old with every change of timing; then the search takes its time


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name.replace(" ", "-"))
def test_a_planted_bug_is_found(plant: Plant) -> None:
    """The seed that found it last time is tried first; when the world has changed since, the others are."""
    first = max(start for start in FAMILIES if start <= plant.hint)
    results = (_run_with(plant, seed) for seed in [plant.hint, *range(first, first + SEEDS)])
    found = next((result for result in results if result is not None and result.rule in plant.caught_by), None)
    assert found is not None, f"none of {SEEDS} seeds noticed the bug: {plant.name}"


@pytest.mark.parametrize("seed", sorted({plant.hint for plant in PLANTS}))
def test_without_a_plant_the_same_seeds_find_nothing(seed: int) -> None:
    """What is found is the plant, not the weather."""
    assert simulate(seed).failure == ""


def _run_with(plant: Plant, seed: int) -> Result | None:
    """None: the product itself noticed what it never expects, before any rule did."""
    try:
        with plant.bug():
            return simulate(seed)
    except BaseExceptionGroup as noticed:
        if noticed.split(AssertionError)[1] is not None:
            raise
        return None

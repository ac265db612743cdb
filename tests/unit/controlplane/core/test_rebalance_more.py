"""Rebalancing, further: what stays, what goes, and what is asked again."""

import dataclasses
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import rebalance
from controlplane.core.failures import LATELY_MS
from tests.unit.controlplane.core.test_rebalance import _Fate, after, begun, clusters, ready, step_by_step, unevenness


@settings(deadline=None, max_examples=60)
@given(clusters())
def test_one_look_foresees_what_many_would(given: rebalance.Situation) -> None:
    foreseen = [(move.task.meta.id, move.target.meta.name) for move in rebalance.foresee(given)]
    assert foreseen == step_by_step(given)


@settings(deadline=None, max_examples=100)
@given(clusters())
def test_each_look_makes_it_better_and_there_is_an_end(given: rebalance.Situation) -> None:
    """The measure falls with every look, so that nothing is ever moved back and forth."""
    names = (f"m{number:07d}" for number in itertools.count())
    before = unevenness(given.tasks)
    while new := begun(given, names):
        gone = {task.replaces for task in new}
        after = [*(task for task in given.tasks if task.meta.id not in gone), *map(ready, new)]
        assert unevenness(after) < before, "it was moved, and nothing is better"
        before = unevenness(after)
        given = dataclasses.replace(given, tasks=after)


@settings(deadline=None, max_examples=100)
@given(clusters(), st.tuples(*[st.sampled_from(_Fate)] * 6))
def test_there_is_an_end_even_where_moved_tasks_fail(given: rebalance.Situation, fates: tuple[_Fate, ...]) -> None:
    """Whatever is moved to some nodes fails there each time, and each failure is forgotten before the next look."""
    names = (f"m{number:07d}" for number in itertools.count())
    slots = {(task.service, task.slot) for task in given.tasks}
    failed = 0
    while new := begun(given, names):
        for task in new:
            fate = fates[int(task.node_id.strip("n")) - 1]
            failed += fate is not _Fate.WORKS
            given = dataclasses.replace(given, tasks=after(given, task, fate, next(names)))
        assert failed <= len(slots), "it is moved again and again to where it fails"
        given = dataclasses.replace(given, now_ms=given.now_ms + LATELY_MS)

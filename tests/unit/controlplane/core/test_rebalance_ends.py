"""Whatever a cluster looks like, each look makes it better, there is an end, and all moves are foreseen."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import locality, plan, rebalance, scheduler, tasks
from controlplane.core.failures import LATELY_MS
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS
from tests.support.moves import LONG_AGO, on, settled, situation


@st.composite
def wishes(draw: st.DrawFn) -> pb.Placement:
    """What a service may want of its nodes."""
    wished = pb.Placement()
    match draw(st.integers(0, 6)):
        case 1:
            wished.spread.add(by="node.labels.zone", max_skew=draw(st.integers(0, 2)))
        case 2:
            wished.preferences.add(expression="node.labels.zone == a", weight=2)
        case 3:
            wished.max_per_node = 3
        case 4:
            wished.tolerations.add(key="gpu")
        case 5 | 6 as kind:
            of, by = draw(st.sampled_from("abc")), draw(st.sampled_from(["", "node.labels.zone"]))
            listed = wished.near if kind == 5 else wished.apart
            listed.add(service=of, by=by, weight=draw(st.sampled_from([0, 3])))
        case _:
            pass
    return wished


@st.composite
def clusters(draw: st.DrawFn) -> rebalance.Situation:
    """Some services anyhow on some nodes, which are of several sizes, tainted, and have parts of the images; tasks have
    failed here and there, lately and long ago.
    """
    count = draw(st.integers(2, 6))
    nodes = [build.node(f"n{n}", since=LONG_AGO, tasks=draw(st.integers(8, 40))) for n in range(1, count + 1)]
    for node in nodes:
        node.meta.labels["zone"] = draw(st.sampled_from("ab"))
        if draw(st.integers(0, 3)) == 0:
            node.spec.taints.add(key="gpu", effect=draw(st.integers(1, 2)))  # type: ignore[arg-type]  # their numbers
    services, members = [], []
    for name in ("a", "b", "c"):
        service = settled(name)
        service.spec.template.placement.CopyFrom(draw(wishes()))
        homes = draw(st.lists(st.integers(1, count), max_size=2 * count))
        services.append(service)
        members += on([f"n{home}" for home in homes], name)
        for home, since_ms in draw(st.lists(st.tuples(st.integers(1, count), st.integers(0, 400_000)), max_size=2)):
            members.append(failure(name, f"n{home}", NOW_MS - since_ms))
    given = situation(services, members, nodes, per_minute=1_000)
    return dataclasses.replace(given, rules=dataclasses.replace(given.rules, stock=draw(stocks(count))))


def failure(of: str, home: str, at: int) -> pb.Task:
    """One that nobody replaces any more."""
    revision_id = build.revision(build.service(of)).meta.id
    return build.task(99, states.FAILED, of=of, node=home, revision_id=revision_id, created_at=at)


@st.composite
def stocks(draw: st.DrawFn, count: int) -> locality.Stock:
    """All services have one image; some nodes have it, some have half of it."""
    holders = locality.Holders()
    for layer in ("x", "y"):
        for home in draw(st.lists(st.integers(1, count), unique=True)):
            holders.add(layer, f"n{home}")
    status = pb.ImageStatus(blobs=[pb.ImageBlob(digest=layer, size=200 << 20) for layer in ("x", "y")])
    revisions = [build.revision(build.service(name)).meta.id for name in "abc"]
    return locality.Stock(
        images_of=dict.fromkeys(revisions, ("manifest",)), images={"manifest": status}, holders=holders
    )


def step_by_step(given: rebalance.Situation) -> list[tuple[str, str]]:
    """What is foreseen when all tasks are looked at again after each round."""
    found: list[tuple[str, str]] = []
    while len(found) < rebalance.MOST_FORESEEN and (wanted := rebalance.moves(given)[0]):
        found += [(move.task.meta.id, move.target.meta.name) for move in wanted]
        homes = {move.task.meta.id: move.target.meta.id for move in wanted}
        there = list(map(plan.copy, given.tasks))
        for task in there:
            task.node_id = homes.get(task.meta.id, task.node_id)
        given = dataclasses.replace(given, tasks=there)
    return found


def unevenness(members: Iterable[pb.Task]) -> int:
    live = (task for task in members if tasks.is_live(task))
    return sum(number**2 for number in Counter((task.service, task.node_id) for task in live).values())


def begun(given: rebalance.Situation, names: Iterator[str]) -> list[pb.Task]:
    """The new tasks of one look, where the scheduler places them."""
    made = rebalance.decide(given, names)
    coming = [change.value for change in made.changes if isinstance(change.value, pb.Task)]
    return [plan.copy(one) for one in scheduled(given, coming)]


def scheduled(given: rebalance.Situation, coming: list[pb.Task]) -> list[pb.Task]:
    templates = {one.meta.id: one.template for one in given.revisions.values()}
    made = scheduler.schedule(given.nodes, given.tasks, coming, templates, given.now_ms, given.rules)
    placed = [plan.copy(change.value) for change in made.changes if isinstance(change.value, pb.Task)]
    assert all(task.node_id for task in placed), "one was moved to where nobody takes it"
    return placed


def ready(task: pb.Task) -> pb.Task:
    task.status.state, task.status.ready = states.RUNNING, True
    return task


class _Fate(Enum):
    WORKS = "it is ready, and the old one goes"
    FAILS = "it fails before it is ready, and the old one stays"
    FAILS_LATER = "it fails when the old one has gone, and another takes its place"


def after(given: rebalance.Situation, task: pb.Task, fate: _Fate, name: str) -> list[pb.Task]:
    """The tasks when it is known what becomes of one that was moved."""
    if fate is _Fate.WORKS:
        return [*(one for one in given.tasks if one.meta.id != task.replaces), ready(task)]
    task.status.state, task.status.ready, task.status.at = states.FAILED, False, given.now_ms
    if fate is _Fate.FAILS:
        return [*given.tasks, task]
    left = [*(one for one in given.tasks if one.meta.id != task.replaces), task]
    another = plan.copy(task)
    another.meta.id, another.meta.name, another.node_id = name, name, ""
    another.status.state, another.replaces, another.moved_because = states.NEW, "", ""
    another.meta.created_at = given.now_ms
    return [*left, *map(ready, scheduled(dataclasses.replace(given, tasks=left), [another]))]


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

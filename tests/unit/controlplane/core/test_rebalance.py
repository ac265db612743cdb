"""Tasks move so that they are spread better: gently, only where the scheduler would put them, and not for ever."""

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum

import pytest
from hypothesis import strategies as st

from controlplane.core import leaving, locality, plan, rebalance, scheduler, tasks
from controlplane.core.failures import LATELY_MS
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

LONG_AGO = NOW_MS - 3_600_000


def settled(name: str = "web", replicas: int = 6) -> pb.Service:
    """A service in which everything is as asked."""
    service = build.service(name, replicas=replicas)
    service.status.settled, service.status.observed_generation = True, 1
    service.status.rollout.state = pb.ROLLOUT_STATE_COMPLETED
    return service


def on(homes: Iterable[str], of: str = "web") -> list[pb.Task]:
    """A task in each slot, on these nodes."""
    revision_id = build.revision(build.service(of)).meta.id
    return [
        build.task(slot, of=of, node=home, revision_id=revision_id, created_at=LONG_AGO)
        for slot, home in enumerate(homes, start=1)
    ]


def three(**changes: int) -> list[pb.Node]:
    """Nodes that have been there for long, but for those that are named with when they came."""
    return [build.node(name, since=changes.get(name, LONG_AGO)) for name in ("n1", "n2", "n3")]


def situation(
    services: Iterable[pb.Service], members: Iterable[pb.Task], nodes: Iterable[pb.Node], **more: object
) -> rebalance.Situation:
    services = list(services)
    rules = scheduler.Rules(services={(one.meta.namespace, one.meta.name): one for one in services})
    revisions = {one.meta.id: one for one in map(build.revision, services)}
    arguments = {"rules": rules, "per_minute": 6, "now_ms": NOW_MS} | more
    return rebalance.Situation(nodes=list(nodes), tasks=list(members), revisions=revisions, **arguments)  # type: ignore[arg-type]  # fields by name


def decided(given: rebalance.Situation) -> tuple[list[pb.Task], int | None]:
    made = rebalance.decide(given, build.suffixes())
    return [change.value for change in made.changes if isinstance(change.value, pb.Task)], made.wake_at


def test_a_task_moves_to_the_node_that_has_come() -> None:
    members = on(["n1", "n1", "n1", "n2", "n2", "n2"])
    made = rebalance.decide(situation([settled()], members, three()), build.suffixes())
    (change,) = made.changes
    assert isinstance(change.value, pb.Task)
    moved = next(task for task in members if task.meta.id == change.value.replaces)
    assert (change.value.slot, change.value.revision_id) == (moved.slot, moved.revision_id)
    assert change.why.startswith(f"moves from {moved.node_id}, which has 3 tasks of web, to n3")


@pytest.mark.parametrize(
    "homes", [["n1", "n1", "n2", "n2", "n3"], ["n1", "n2"], ["n1", "n2", "n3"] * 2, []], ids=",".join
)
def test_what_is_spread_stays(homes: list[str]) -> None:
    assert decided(situation([settled()], on(homes), three())) == ([], None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda service: setattr(service.spec.rebalance, "mode", pb.REBALANCE_MODE_OFF), "rebalance: off"),
        (lambda service: setattr(service.spec.update, "order", pb.UPDATE_ORDER_STOP_FIRST), "order: stop-first"),
        (lambda service: setattr(service.spec.on_node_loss, "fence", 10_000), "onNodeLoss.fence"),
        (lambda service: setattr(service.status, "settled", False), "under way"),
        (lambda service: setattr(service.status, "observed_generation", 0), "under way"),
        (lambda service: setattr(service.status.rollout, "state", pb.ROLLOUT_STATE_ROLLING), "a rollout goes on"),
        (lambda service: setattr(service.meta, "deleted_at", 1), None),
        (lambda service: setattr(service.spec, "mode", pb.SERVICE_MODE_GLOBAL), None),
        (lambda service: service.spec.template.placement.constraints.append("node.name == n1"), None),
        (lambda service: service.spec.template.placement.preferences.add(expression="node.name == n1", weight=1), None),
    ],
    ids=[
        *("off", "stop-first", "fenced", "unsettled", "unseen", "rolling"),
        *("deleted", "global", "constrained", "preferring"),
    ],
)  # fmt: skip
def test_it_stays_where_it_is(change: object, why: str | None) -> None:
    """What is in motion is left alone, and what the scheduler would put there again. Who asks is told of the former."""
    service = settled()
    change(service)  # type: ignore[operator]  # a function of the service
    given = situation([service], on(["n1"] * 6), three())
    assert decided(given) == ([], None)
    told = [said for _, said in rebalance.staying(given)]
    assert [why in said for said in told] == [True] if why else told == []


def test_of_what_is_spread_nothing_is_told() -> None:
    off = settled()
    off.spec.rebalance.mode = pb.REBALANCE_MODE_OFF
    assert list(rebalance.staying(situation([off], on(["n1", "n2", "n3"] * 2), three()))) == []


def test_nodes_that_are_filled_up_are_told_of() -> None:
    given = situation([settled()], on(["n1"] * 6), three())
    filling = dataclasses.replace(given, rules=dataclasses.replace(given.rules, strategy=scheduler.Strategy.BINPACK))
    assert ["binpack" in why for _, why in rebalance.staying(filling)] == [True]


def test_a_node_that_has_just_come_is_watched_first() -> None:
    came = NOW_MS - 1_000
    given = situation([settled()], on(["n1", "n1", "n2", "n2"]), three(n3=came))
    assert decided(given) == ([], came + rebalance.FRESH_MS)


def test_no_more_a_minute_than_allowed() -> None:
    services = [settled(name) for name in ("a", "b", "c")]
    members = [task for service in services for task in on(["n1"] * 4, service.meta.name)]
    assert len(decided(situation(services, members, three(), per_minute=2))[0]) == 2
    assert decided(situation(services, members, three(), per_minute=0)) == ([], None)
    moved = build.task(9, of="z", created_at=NOW_MS - 20_000)
    moved.replaces = "z-9-old"
    made, wake_at = decided(situation(services, [*members, moved], three(), per_minute=1))
    assert (made, wake_at) == ([], NOW_MS + 40_000)


def test_a_service_may_ask_for_fewer() -> None:
    """The others go on, and it goes on itself as soon as its last move is a minute old."""
    slow, quick = settled("a"), settled("b")
    slow.spec.rebalance.max_moves_per_minute = 1
    members = [task for service in (slow, quick) for task in on(["n1"] * 6, service.meta.name)]
    moved = build.task(9, of="a", node="n2", created_at=NOW_MS - 20_000)
    moved.replaces = "a-9-old"
    made, wake_at = decided(situation([slow, quick], [*members, moved], three()))
    assert ([task.service for task in made], wake_at) == (["b"], NOW_MS + 40_000)
    moved.meta.created_at -= 40_000
    made, wake_at = decided(situation([slow, quick], [*members, moved], three()))
    assert ([task.service for task in made], wake_at) == (["a", "b"], None)
    slow.spec.rebalance_asked_at = NOW_MS
    moved.meta.created_at = NOW_MS
    assert len(decided(situation([slow, quick], [*members, moved], three()))[0]) == 2


def test_one_that_was_moved_in_vain_is_not_moved_again() -> None:
    first, second = on(["n1", "n1"])
    failed = build.task(2, states.FAILED, node="n2", created_at=LONG_AGO)
    failed.replaces = second.meta.id
    (made,), _ = decided(situation([settled()], [first, second, failed], three()))
    assert made.replaces == first.meta.id


def test_none_of_a_slot_that_was_moved_in_vain_is_moved_again() -> None:
    """It was ready, the old one stopped, and then it failed: its replacement would be moved there again and again."""
    there = on(["n1", "n1"])
    failed = build.task(2, states.FAILED, node="n2", created_at=LONG_AGO - 1, revision_id=there[0].revision_id)
    failed.replaces, failed.moved_because = "web-2-gone", "moves from n1"
    (made,), _ = decided(situation([settled()], [*there, failed], three()))
    assert made.slot == 1
    failed.moved_because = leaving.DRAINED
    (made,), _ = decided(situation([settled()], [*there, failed], three()))
    assert made.slot == 2


def test_what_is_not_ready_stays() -> None:
    """Nothing is gained by moving what does not work, and the one that does goes first."""
    members = on(["n1"] * 3)
    for task in members[1:]:
        task.status.ready = False
    (made,), _ = decided(situation([settled()], members, three()))
    assert made.replaces == members[0].meta.id
    members[0].status.ready = False
    assert decided(situation([settled()], members, three())) == ([], None)


def test_tasks_of_nodes_that_take_no_part_stay() -> None:
    """Those leave by themselves, or come back."""
    nodes = [build.node("n1", availability=pb.AVAILABILITY_PAUSE, since=LONG_AGO), *three()[1:]]
    (made,), _ = decided(situation([settled()], on(["n1"] * 3 + ["n2"] * 2), nodes))
    assert made.moved_because.startswith("moves from n2, which has 2")


def test_where_it_failed_lately_nothing_is_moved_until_that_is_forgotten() -> None:
    """And then without anything else that would wake the leader."""
    failed_at = NOW_MS - 60_000
    failed = [
        build.task(9, states.FAILED, node=node, created_at=at, revision_id=on(["n1"])[0].revision_id)
        for node, at in (("n2", failed_at), ("n3", failed_at + 1_000))
    ]
    given = situation([settled()], [*on(["n1"] * 4), *failed], three())
    forgotten_at = failed_at + LATELY_MS
    assert decided(given) == ([], forgotten_at)
    (made,), _ = decided(dataclasses.replace(given, now_ms=forgotten_at))
    assert made.moved_because.endswith("to n2, which has 0")


def test_who_asks_for_it_waits_for_nothing() -> None:
    service = settled()
    given = situation([service], on(["n1", "n1", "n2", "n2"]), three(n3=NOW_MS - 1_000), per_minute=0)
    assert decided(given) == ([], None)
    service.spec.rebalance_asked_at = NOW_MS - 1_000
    assert len(decided(given)[0]) == 1
    service.spec.rebalance_asked_at = NOW_MS - rebalance.ASKED_MS
    assert decided(given) == ([], None)


def test_all_moves_are_foreseen() -> None:
    given = situation([settled()], on(["n1", "n1", "n1", "n2", "n2", "n2"]), three(n3=NOW_MS - 1), patient=False)
    assert [move.target.meta.name for move in rebalance.foresee(given)] == ["n3", "n3"]


# A large service ------------------------------------------------------------------------------------------------------

LOOK_S = 0.5
"""So long one look at 5,000 tasks may take on a slow machine; each with each other would be several seconds."""


def large(replicas: int = 5_000) -> rebalance.Situation:
    """A hundred nodes, of which one has come a while ago and has nothing yet."""
    nodes = [build.node(f"n{number}", since=LONG_AGO, tasks=replicas) for number in range(100)]
    members = on([f"n{slot % 99}" for slot in range(replicas)])
    return situation([settled(replicas=replicas)], members, nodes)


def test_a_large_service_takes_one_look_at_each_task() -> None:
    """The leader decides in its event loop: it would lose its lease meanwhile, and so would the next one."""
    given = large()
    began = time.process_time()
    made, _ = decided(given)
    assert time.process_time() - began < LOOK_S
    assert len(made) == 1


def test_all_moves_of_a_large_service_are_foreseen_in_one_look() -> None:
    given = large()
    began = time.process_time()
    moves = list(rebalance.foresee(given))
    assert time.process_time() - began < 4 * LOOK_S
    assert {move.target.meta.name for move in moves} == {"n99"}
    assert 40 < len(moves) <= 50


# There is an end to it ------------------------------------------------------------------------------------------------


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

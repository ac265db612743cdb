"""Tasks move so that they are spread better: gently, only where the scheduler would put them, and not for ever."""

import dataclasses
import time

import pytest

from controlplane.core import leaving, rebalance, scheduler
from controlplane.core.failures import LATELY_MS
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS
from tests.support.moves import LONG_AGO, decided, on, settled, situation, three


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

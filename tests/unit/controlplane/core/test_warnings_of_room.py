"""What an apply warns of, further: replicas that find no place, and names that mean nothing."""

import pytest

from controlplane.core import update_policy
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.unit.controlplane.core.test_warnings import (
    ALL,
    GLOBAL,
    HERE,
    NEAR_A,
    NEAR_B,
    NEAR_C,
    START_FIRST,
    STOP_FIRST,
    applied,
    labelled,
    placed,
    taking,
)


def test_replicas_that_reserve_more_than_there_is_are_told() -> None:
    """Where nothing but the number of tasks that a node takes is in the way, the number of replicas is."""
    made = build.service(replicas=5)
    made.spec.template.sidecars.add(name="a", image="hello").resources.reservations.cpu = 3_000
    (line,) = applied(made, nodes=(build.node("n1"), build.node("n2")))
    assert line.startswith("spec.template.sidecars[0].resources.reservations.cpu: 2 of its 5 replicas find a place")
    (line,) = applied(build.service(replicas=5), nodes=(build.node("n1", tasks=3),))
    assert line.startswith("spec.replicas: 3 of its 5 replicas find a place")
    assert applied(made, nodes=()) == []


def test_of_many_replicas_that_are_apart_all_are_counted() -> None:
    made = placed(apart=[HERE], spread=[pb.Spread(by="node.labels.zone", max_skew=1)])
    made.spec.replicas = 10_000
    nodes = tuple(build.node(f"n{number}") for number in range(2_100))
    for node in nodes:
        node.meta.labels["zone"] = "a"
    (line,) = applied(made, nodes=nodes)
    assert line.startswith("spec.template.placement.apart[0]: 2100 of its 10000 replicas find a place")


def test_what_a_global_service_has_no_choice_about_is_told() -> None:
    made = placed(
        preferences=[pb.Preference(expression="node.labels.zone == a")],
        spread=[pb.Spread(by="node.labels.zone")],
        near=[pb.Affinity(service="web", weight=1)],
        max_per_node=2,
    )
    made.spec.rebalance.max_moves_per_minute = 1
    node = build.node("n1")
    node.meta.labels["zone"] = "a"
    assert applied(made, nodes=(node, build.node("n2"))) == []
    made.spec.mode = pb.SERVICE_MODE_GLOBAL
    made.spec.ClearField("replicas")
    why = "it is global: one task on each node that fits, and nothing to choose; remove"
    assert applied(made, nodes=(node, build.node("n2"))) == [
        f"spec.rebalance: {why} it",
        f"spec.template.placement.preferences: {why} it",
        f"spec.template.placement.spread: {why} it",
        f"spec.template.placement.near: {why} what has a weight",
        f"spec.template.placement.maxPerNode: {why} it",
    ]
    made.spec.template.placement.CopyFrom(pb.Placement(constraints=["node.name != n2"], apart=[HERE]))
    made.spec.ClearField("rebalance")
    assert applied(made, nodes=(node, build.node("n2"))) == []


def test_services_that_are_near_to_each_other_in_a_circle_are_told_of() -> None:
    """A wish with a weight holds nobody up, and to be near to its own replicas is no circle."""
    (line,) = applied(placed("a", near=NEAR_B), placed("b", near=NEAR_C), placed("c", near=NEAR_A))
    assert line == (
        "spec.template.placement.near[0]: a → b → c → a are each near to the next, so that none can be placed before "
        "another runs; remove one, or give it a weight"
    )
    assert applied(placed("a", near=NEAR_B), placed("b", near=[pb.Affinity(service="a", weight=1)])) == []
    assert applied(placed("a", near=NEAR_A)) == []
    assert applied(placed("a", near=NEAR_B), placed("b")) == []


@pytest.mark.parametrize(
    ("near_by", "apart_by", "weight", "clash"),
    [
        ("", "", 0, True),
        ("", "node.labels.zone", 0, True),
        ("node.labels.zone", "node.labels.zone", 0, True),
        ("node.labels.zone", "node.name", 0, False),
        ("", "", 1, False),
    ],
)
def test_near_to_what_keeps_apart_is_told_on_both_sides(near_by: str, apart_by: str, weight: int, clash: bool) -> None:
    a = placed("a", apart=[pb.Affinity(service="b", by=apart_by, weight=weight)])
    b = placed("b", near=[pb.Affinity(service="a", by=near_by)])
    zone = (labelled(zone="z"),)
    for one in (a, b):
        one.spec.template.placement.tolerations.add(key="dedicated")
    assert [line.partition(":")[0] for line in (*applied(a, b, nodes=zone), *applied(b, a, nodes=zone))] == (
        ["spec.template.placement.apart[0]", "spec.template.placement.near[0]"] if clash else []
    )


def test_waiting_for_what_runs_nothing_is_told() -> None:
    waits = build.service("web")
    waits.spec.depends_on["db"] = pb.DEPENDENCY_CONDITION_READY
    db = build.service("db", replicas=0)
    assert applied(waits, db) == [
        "spec.dependsOn.db: db has no replicas; its tasks wait until `orchctl scale db=1` or more"
    ]
    db.spec.replicas = 1
    assert applied(waits, db) == []
    db.spec.stopped = True
    assert applied(waits, db) == ["spec.dependsOn.db: db is stopped; its tasks wait until `orchctl start db`"]


@pytest.mark.parametrize(
    ("update", "field"),
    [
        (pb.UpdatePolicy(canary=5), "spec.update.canary"),
        (pb.UpdatePolicy(canary=2), "spec.update.canary"),
        (pb.UpdatePolicy(canary=1), ""),
        (pb.UpdatePolicy(parallelism=1, max_surge="1"), "spec.update.parallelism"),
        (pb.UpdatePolicy(max_surge="1"), ""),
        (pb.UpdatePolicy(parallelism=1), ""),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
def test_what_of_an_update_counts_for_nothing_is_told(update: pb.UpdatePolicy, field: str) -> None:
    made = build.service(replicas=2)
    made.spec.update.CopyFrom(update)
    assert [line.partition(":")[0] for line in applied(made)] == ([field] if field else [])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (taking("port", ALL), ["spec.update.order", "port 8080", "parallelism: 0 all at once", "or start-first"]),
        (taking("gpu", ALL), ["spec.update.order", "gpu of their nodes", "parallelism: 0 all at once"]),
        (taking("gpu", pb.UpdatePolicy(parallelism=3)), ["spec.update.order", "parallelism: 3 all at once"]),
        (taking("port", ALL, mode=GLOBAL), ["spec.update.order", "write parallelism: 1"]),
        (taking("fence", ALL), ["spec.update.parallelism", "fenced tasks stop", "write parallelism: 1"]),
        (taking("nothing", ALL), []),
        (taking("no gpu", ALL), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=2)), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=3), mode=GLOBAL), []),
        (taking("gpu", pb.UpdatePolicy()), []),
        (taking("gpu", ALL, replicas=1), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=0, order=STOP_FIRST)), []),
        (taking("gpu", pb.UpdatePolicy(parallelism=0, order=START_FIRST)), []),
    ],
)
def test_who_replaces_all_at_once_is_told_when_they_stop_first(made: pb.Service, words: list[str]) -> None:
    """Where that was not said: else it is blue and green, or what they want."""
    lines = [line for line in applied(made) if "spec.update" in line]
    assert len(lines) == bool(words)
    assert [word for word in words if word not in lines[0]] == []


def test_none_of_a_thing_is_nothing_that_two_tasks_cannot_have() -> None:
    made = taking("no gpu", pb.UpdatePolicy())
    assert update_policy.of(made.spec, made.spec.template, 3).surge == 1


@pytest.mark.parametrize(
    ("policy", "order", "field"),
    [
        (pb.DisruptionPolicy(min_available="5"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.minAvailable"),
        (pb.DisruptionPolicy(min_available="51%"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.minAvailable"),
        (pb.DisruptionPolicy(max_unavailable="49%"), pb.UPDATE_ORDER_STOP_FIRST, "spec.disruption.maxUnavailable"),
        (pb.DisruptionPolicy(min_available="50%"), pb.UPDATE_ORDER_STOP_FIRST, ""),
        (pb.DisruptionPolicy(max_unavailable="1"), pb.UPDATE_ORDER_STOP_FIRST, ""),
        (pb.DisruptionPolicy(min_available="5"), pb.UPDATE_ORDER_START_FIRST, ""),
        (pb.DisruptionPolicy(), pb.UPDATE_ORDER_STOP_FIRST, ""),
    ],
    ids=lambda value: str(value).replace("\n", " "),
)
def test_a_service_that_can_never_leave_a_node_is_told(
    policy: pb.DisruptionPolicy, order: pb.UpdateOrder.ValueType, field: str
) -> None:
    made = build.service(replicas=2)
    made.spec.disruption.CopyFrom(policy)
    made.spec.update.order = order
    lines = applied(made)
    assert [line.partition(":")[0] for line in lines] == ([field] if field else [])
    assert all("waits until its --deadline" in line for line in lines)

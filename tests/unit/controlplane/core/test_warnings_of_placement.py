"""An apply warns of places: what no node is, what has no room, and what keeps tasks from each other."""

import pytest

from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.warned import applied, labelled, placed

HERE = pb.Affinity(service="web")
SAME_ZONE = pb.Affinity(service="web", by="node.labels.zone")
NEAR_A, NEAR_B, NEAR_C = ([pb.Affinity(service=name)] for name in "abc")


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (
            {"spread": [pb.Spread(by="node.labels.zon", max_skew=1)]},
            'spread[0].by: no node has node.labels.zon, so none takes its tasks; did you mean "zone"?',
        ),
        (
            {"spread": [pb.Spread(by="node.labels.rack")]},
            (
                "spread[0].by: no node has node.labels.rack, so none is told from another by it; "
                "`orchctl node label NODE rack=VALUE`"
            ),
        ),
        ({"spread": [pb.Spread(by="node.labels.zone", max_skew=1), pb.Spread(by="node.name")]}, ""),
        (
            {"preferences": [pb.Preference(expression="node.labels.zone == b", weight=5)]},
            (
                "preferences[0]: no node fulfils node.labels.zone == b, so it counts for nothing; "
                "change it, or `orchctl node label NODE zone=VALUE`"
            ),
        ),
        (
            {"preferences": [pb.Preference(expression="node.labels.zoen == a", weight=5)]},
            'preferences[0]: no node fulfils node.labels.zoen == a, so it counts for nothing; did you mean "zone"?',
        ),
        (
            {"preferences": [pb.Preference(expression="node.name == n9", weight=5)]},
            "preferences[0]: no node fulfils node.name == n9, so it counts for nothing; change it, or remove it",
        ),
        ({"preferences": [pb.Preference(expression="node.labels.zone == b", weight=-5)]}, ""),
        ({"preferences": [pb.Preference(expression="node.labels.zone == a")]}, ""),
        (
            {"tolerations": [pb.Toleration(key="dedicate")]},
            'tolerations[0].key: no node has a taint dedicate; did you mean "dedicated"?',
        ),
        ({"tolerations": [pb.Toleration(key="maintenance")]}, ""),
        ({"tolerations": [pb.Toleration()]}, ""),
        (
            {"near": [pb.Affinity(service="web", by="node.labels.rack")]},
            "near[0].by: no node has node.labels.rack, so none takes its tasks; `orchctl node label NODE rack=VALUE`",
        ),
    ],
    ids=str,
)
def test_what_matches_no_node_is_told_with_place_and_remedy(wishes: dict[str, object], expected: str) -> None:
    made = placed(**wishes)
    made.spec.template.placement.tolerations.add(key="dedicated")
    told_of = applied(made, nodes=(labelled(zone="a"),))
    assert told_of == ([f"spec.template.placement.{expected}"] if expected else [])


@pytest.mark.parametrize(
    ("constraint", "cpu", "expected"),
    [
        ("node.name == n9", 0, ("spec.template.placement.constraints: ", "`orchctl node label NODE KEY=VALUE`")),
        ("node.name == n1", 900_000, ("spec.template.container.resources.reservations.cpu: ", "reserve less")),
    ],
)
def test_what_fits_nowhere_is_told_with_place_and_remedy(constraint: str, cpu: int, expected: tuple[str, str]) -> None:
    made = placed(constraints=[constraint])
    made.spec.template.container.resources.reservations.cpu = cpu
    (line,) = applied(made)
    assert line.startswith(f"{expected[0]}its tasks stay pending, even if every node were empty")
    assert expected[1] in line.rpartition("; ")[2]


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ("container", "container"),
        ("sidecars", "sidecars[1]"),
        ("init", "init[1]"),
    ],
)
@pytest.mark.parametrize("resource", ["memory", "generic"])
def test_what_fits_nowhere_is_told_at_the_container_that_reserves_it(container: str, field: str, resource: str) -> None:
    made = build.service()
    template = made.spec.template
    for listed in (template.sidecars, template.init):
        for name in "ab":
            listed.add(name=name, image="hello").resources.reservations.memory = 1 << 20
    blamed = template.container if container == "container" else getattr(template, container)[1]
    if resource == "memory":
        blamed.resources.reservations.memory = 1 << 40
    else:
        blamed.resources.reservations.generic.update({"disk": 1, "gpu": 2})
    node = build.node("n1")
    node.status.description.capacity.generic["disk"].ids.append("0")
    (line,) = applied(made, nodes=(node,))
    suffix = ".gpu" if resource == "generic" else ""
    assert line.startswith(f"spec.template.{field}.resources.reservations.{resource}{suffix}: its tasks stay pending")


@pytest.mark.parametrize(
    ("wishes", "told_of"),
    [
        ({"near": [HERE], "max_per_node": 1}, ("maxPerNode", "1 of its 5 replicas finds", "or write `replicas: 1`")),
        ({"near": [SAME_ZONE], "max_per_node": 2}, ("near[0]", "4 of its 5 replicas find", "or write `replicas: 4`")),
        ({"near": [HERE]}, None),
        ({"near": [pb.Affinity(service="web", weight=1)], "max_per_node": 2}, None),
        ({"apart": [HERE]}, ("apart[0]", "3 of its 5 replicas find", "write `replicas: 3`, or add nodes")),
        ({"apart": [SAME_ZONE]}, ("apart[0]", "2 of its 5 replicas find", "write `replicas: 2`, or add nodes")),
        ({"apart": [HERE], "constraints": ["node.name == n1"]}, ("apart[0]", "1 of its 5", "write `replicas: 1`")),
        ({"apart": [pb.Affinity(service="web", weight=1)]}, None),
        ({"max_per_node": 1}, ("maxPerNode", "3 of its 5 replicas find", "write `replicas: 3`, or add nodes")),
        ({"max_per_node": 2}, None),
        ({"max_per_node": 2, "constraints": ["node.name in (n1, n2)"]}, ("maxPerNode", "4 of its 5", "`replicas: 4`")),
        (
            {"spread": [pb.Spread(by="node.labels.zone", max_skew=1)], "constraints": ["node.name != n2"]},
            None,
        ),
        (
            {"spread": [pb.Spread(by="node.labels.zone", max_skew=1)], "max_per_node": 2},
            None,
        ),
        (
            {"spread": [pb.Spread(by="node.name", max_skew=1)]},
            None,
        ),
    ],
    ids=str,
)  # fmt: skip
def test_replicas_that_find_no_place_are_told(wishes: dict[str, object], told_of: tuple[str, str, str] | None) -> None:
    """n1 and n2 are in zone a, n3 in zone b; and each is as if it had no task and were there."""
    nodes = tuple(build.node(name, availability=pb.AVAILABILITY_DRAIN) for name in ("n1", "n2", "n3"))
    for node, zone in zip(nodes, "aab", strict=True):
        node.meta.labels["zone"] = zone
    made = placed(**wishes)
    made.spec.replicas = 5
    lines = applied(made, nodes=nodes)
    assert len(lines) == (told_of is not None)
    for line in lines:
        assert told_of is not None
        field, number, remedy = told_of
        assert line.startswith(f"spec.template.placement.{field}: {number}")
        assert remedy in line.rpartition("; ")[2]


def test_the_last_of_a_skew_that_finds_no_place_is_told() -> None:
    """Zone b has room for one, so that zone a takes two and no more."""
    nodes = (build.node("n1"), build.node("n2", tasks=1))
    for node, zone in zip(nodes, "ab", strict=True):
        node.meta.labels["zone"] = zone
    made = placed(spread=[pb.Spread(by="node.labels.zone", max_skew=1)])
    made.spec.replicas = 4
    (line,) = applied(made, nodes=nodes)
    assert line == (
        "spec.template.placement.spread[0].maxSkew: 3 of its 4 replicas find a place, even if every node were empty; "
        "write a greater maxSkew, write `replicas: 3`, or add nodes"
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

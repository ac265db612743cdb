"""Placement is understood or refused with its place and a remedy, and contradictions are told before anything runs."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import constraints, rules
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts


@pytest.mark.parametrize(
    ("text", "fulfilling", "others"),
    [
        ("node.labels.zone == a", ["a"], ["b", None]),
        ("node.labels.zone==a", ["a"], ["b", None]),
        ("node.name != n1", ["n2", None], ["n1"]),
        ("node.labels.disk in (ssd, nvme)", ["ssd", "nvme"], ["hdd", None]),
        ("node.labels.disk not  in (hdd)", ["ssd", None], ["hdd"]),
        ("node.labels.gpu exists", ["a100"], [None]),
        ("node.labels.gpu not exists", [None], ["a100"]),
        ("node.platform == linux/amd64", ["linux/amd64"], ["linux/arm64"]),
    ],
)
def test_a_constraint_says_what_fulfils_it(text: str, fulfilling: list[str | None], others: list[str | None]) -> None:
    constraint = constraints.parse(text)
    assert [constraint.fulfilled(value) for value in fulfilling] == [True] * len(fulfilling)
    assert [constraint.fulfilled(value) for value in others] == [False] * len(others)


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ("node.labels.zone = a", "is no comparison", "node.labels.zone == a"),
        ("zone == a", 'nodes have no attribute "zone"', 'did you mean "node.labels.zone"?'),
        ("nme == n1", 'nodes have no attribute "nme"', "did you mean"),
        ("node.nam == n1", 'nodes have no attribute "node.nam"', 'did you mean "node.name"?'),
        ("node.lables.zone == a", "nodes have no attribute", 'did you mean "node.labels.zone"?'),
        ("node.cpus == 3", "nodes have no attribute", "known are node.id"),
        ("node.labels. == a", "names no label", "node.labels.zone"),
        ("node.name ==", "is no comparison", "write it like"),
        ("node.name in ()", "is no value", "write it like"),
        ("node.name in (a b)", "is no value", "write letters"),
        ("node.name > n1", "is no comparison", "write it like"),
        ("", "is no constraint", "write it like"),
        ("x" * 600, "is no constraint", "write it like"),
    ],
)
def test_what_is_no_constraint_is_told_with_a_remedy(text: str, complaint: str, hint: str) -> None:
    with pytest.raises(constraints.NotUnderstood) as caught:
        constraints.parse(text)
    assert complaint in str(caught.value)
    assert hint in caught.value.hint


@given(st.text(max_size=80))
def test_any_text_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(constraints.NotUnderstood):
        assert constraints.parse(text).attribute


@pytest.mark.parametrize(
    ("lines", "at"),
    [
        (["node.name == a", "node.name == b"], [1]),
        (["node.name == a", "node.labels.x == b"], []),
        (["node.labels.x exists", "node.labels.x not exists"], [1]),
        (["node.labels.x in (a, b)", "node.labels.x != a", "node.labels.x != b"], [2]),
        (["node.labels.x not in (a, b)", "node.labels.x != c"], []),
        (["node.labels.x not exists", "node.labels.x != a"], []),
        (["node.labels.x not exists", "node.labels.x == a"], [1]),
        (["node.labels.x == a", "node.name not exists"], [1]),
        (["node.platform not exists"], [0]),
        (["node.hostname exists"], []),
    ],
)
def test_contradictions_are_found_where_they_begin(lines: list[str], at: list[int]) -> None:
    assert [index for index, _ in constraints.contradictions([constraints.parse(line) for line in lines])] == at


VALUES = ("a", "b", "c")
_texts = st.one_of(
    st.builds("node.labels.x {} {}".format, st.sampled_from(["==", "!="]), st.sampled_from(VALUES)),
    st.builds(
        "node.labels.x {} ({})".format, st.sampled_from(["in", "not in"]), st.sampled_from(["a", "a, b", "b, c"])
    ),
    st.sampled_from(["node.labels.x exists", "node.labels.x not exists"]),
)


@given(st.lists(_texts, min_size=1, max_size=5))
def test_a_contradiction_is_told_exactly_when_no_value_fulfils_all(lines: list[str]) -> None:
    parsed = [constraints.parse(line) for line in lines]
    possible = any(all(one.fulfilled(value) for one in parsed) for value in (*VALUES, "other", None))
    assert bool(list(constraints.contradictions(parsed))) is not possible


def problems(placement: pb.Placement) -> list[str]:
    return [str(problem) for problem in rules.validate(placement)]


@pytest.mark.parametrize(
    ("placement", "complaint"),
    [
        (pb.Placement(constraints=["node.nam == x"]), 'constraints[0]: nodes have no attribute "node.nam"'),
        (
            pb.Placement(preferences=[pb.Preference(expression="x")]),
            "preferences[0].expression: nodes have no attribute",
        ),
        (pb.Placement(spread=[pb.Spread(by="zone")]), 'spread[0].by: nodes have no attribute "zone"'),
        (pb.Placement(spread=[pb.Spread(by="node.name")] * 2), "spread[1].by: node.name is spread over already"),
        (pb.Placement(near=[pb.Affinity(service="db", by="rack")]), "near[0].by: nodes have no attribute"),
        (
            pb.Placement(near=[pb.Affinity(service="db")], apart=[pb.Affinity(service="db", by="node.labels.zone")]),
            'near[0]: no node is near to "db" and apart from it',
        ),
        (pb.Placement(tolerations=[pb.Toleration(value="x")]), "tolerations[0].value: belongs to a key"),
        (pb.Placement(constraints=["node.id not exists"]), "constraints[0]: every node has node.id"),
        (
            pb.Placement(near=[pb.Affinity(service="Bad_Name")]),
            'near[0].service: "Bad_Name" is not the name of a service',
        ),
        (pb.Placement(apart=[pb.Affinity(service="a/b")]), 'apart[0].service: "a/b" is not the name of a service'),
        (
            pb.Placement(constraints=["node.name == a", "node.name == b"]),
            "constraints[1]: no node can fulfil it together with node.name == a; remove one of them",
        ),
    ],
)
def test_what_cannot_be_placed_is_told_at_its_place(placement: pb.Placement, complaint: str) -> None:
    assert any(found.startswith(complaint) for found in problems(placement)), problems(placement)


def test_a_placement_that_makes_sense_has_no_problem() -> None:
    zone = "node.labels.zone"
    placement = pb.Placement(
        constraints=[f"{zone} in (a, b)", f"{zone} != a"],
        near=[pb.Affinity(service="db", by=zone)],
        apart=[pb.Affinity(service="db"), pb.Affinity(service="web", weight=3)],
        spread=[pb.Spread(by=zone, max_skew=1), pb.Spread(by="node.name")],
        tolerations=[pb.Toleration(), pb.Toleration(key="gpu", value="a100")],
    )
    assert problems(placement) == []


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("resources: {limits: {pids: 10}, reservations: {pids: 20}}", "20 is more than the limit, 10"),
        ("resources: {reservations: {generic: {GPU: 1}}}", "not the name of a resource"),
        ("resources: {reservations: {generic: {gpu: 1000000}}}", "the most is 10000"),
        ("resources: {reservations: {generic: {gpu: -1}}}", ""),
        ("resources: {reservations: {disk: 99999Ti}}", "too big"),
    ],
)
def test_impossible_resources_are_told(lines: str, complaint: str) -> None:
    found = texts.mistakes(texts.container(lines))
    assert found, "it was accepted"
    assert complaint in found[0]


def test_a_nodes_taints_are_checked() -> None:
    taints = [pb.Taint(key="gpu", value="a"), pb.Taint(key="gpu", value="b"), pb.Taint(key="b a")]
    found = problems_of_node(taints)
    assert found[0] == 'spec.taints[1]: "gpu" has this effect already'
    assert found[1].startswith('spec.taints[2].key: "b a" is no taint\'s key')


def problems_of_node(taints: list[pb.Taint]) -> list[str]:
    return [
        str(problem) for problem in rules.validate(pb.Node(meta=pb.Meta(name="n1"), spec=pb.NodeSpec(taints=taints)))
    ]

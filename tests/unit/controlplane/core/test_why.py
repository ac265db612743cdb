"""Why and where to: the answers agree with what the scheduler does, and name every reason."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import edits, failures, foresight, scheduler, warnings, why
from manifests import defaults
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS
from tests.unit.controlplane.core import test_choosing as worlds

REVISION = "web-1-id-web"


def explained(
    machines: list[pb.Node], placed: list[pb.Task], task: pb.Task, template: pb.TaskTemplate, only: str = ""
) -> api.WhyResponse:
    return why.explain(
        task,
        nodes=machines,
        placed=placed,
        templates={task.revision_id: template},
        rules=scheduler.Rules(),
        now_ms=NOW_MS,
        only=only,
    )


def test_a_waiting_task_is_told_the_first_reason_of_each_node() -> None:
    machines = [build.node("n1", cpu=100), build.node("n2"), build.node("n3")]
    machines[1].spec.taints.add(key="gpu", value="a100")
    machines[2].meta.labels["zone"] = "b"
    template = build.template(resources=pb.Resources(reservations=pb.ResourceReservations(cpu=500)))
    template.placement.constraints.append("node.labels.zone != b")
    answer = explained(machines, [], build.task(1, states.NEW), template)
    assert answer.summary == "it has no node yet: none of 3 nodes takes it now"
    assert {node.node: (node.filters[0].filter, node.filters[0].refusal) for node in answer.nodes} == {
        "n1": ("cpu", "not enough processors: needs 500m, 100m is free"),
        "n2": ("taints", "taint gpu=a100:no-schedule is not tolerated"),
        "n3": ("constraints", "constraint node.labels.zone != b is not fulfilled: it has b"),
    }


def test_one_node_is_told_of_by_every_filter() -> None:
    answer = explained([build.node("n1"), build.node("n2")], [], build.task(1, states.NEW), build.template(), "n2")
    (node,) = answer.nodes
    assert (node.node, node.takes) == ("n2", True)
    assert {one.filter for one in node.filters} >= {"state", "taints", "spread", "memory", "generic", "ports"}
    assert list(node.score) == ["0 of its tasks there", "0 tasks there"]


def test_a_placed_task_is_looked_at_as_if_it_had_no_node() -> None:
    """Its own weight does not speak against its node."""
    here, there = build.task(1, node="n1"), build.task(2, node="n2")
    answer = explained([build.node("n1"), build.node("n2")], [here, there], here, build.template())
    assert answer.summary == "it is on n1, which is the best now: 2 of 2 nodes take it now"
    assert [(node.node, node.here) for node in answer.nodes] == [("n1", True), ("n2", False)]


def test_of_a_global_service_it_is_told_which_nodes_are_its_own() -> None:
    """As if it had no task yet: that a node has its task does not speak against the node, whatever it takes."""
    machines = [build.node("n1", cpu=100), build.node("n2", cpu=100), build.node("n3", cpu=10)]
    service = build.service(name="web")
    service.spec.mode = pb.SERVICE_MODE_GLOBAL
    template = build.template(resources=pb.Resources(reservations=pb.ResourceReservations(cpu=80)))
    ended = build.task(3, states.COMPLETE, node="n3")
    answer = why.explain(
        pb.Task(meta=pb.Meta(namespace="default"), service="web", revision_id=REVISION),
        nodes=machines,
        placed=[build.task(1, node="n1"), ended],
        templates={REVISION: template},
        rules=scheduler.Rules(services={("default", "web"): service}),
        now_ms=NOW_MS,
    )
    assert answer.summary == "one task on each node that takes it: 2 of 3 nodes do now; it is on 1"
    assert [(one.node, one.here, one.takes) for one in answer.nodes] == [
        ("n1", True, True),
        ("n2", False, True),
        ("n3", False, False),
    ]


def test_a_task_of_one_node_is_refused_by_all_others() -> None:
    task = build.task(1, states.NEW)
    task.target_node_id = "n2"
    answer = explained([build.node("n1"), build.node("n2")], [], task, build.template())
    assert [(node.node, node.takes) for node in answer.nodes] == [("n2", True), ("n1", False)]
    assert answer.nodes[1].filters[0].filter == "target"


@settings(max_examples=150, deadline=None)
@given(worlds.nodes(), worlds.templates(), st.integers(0, 4))
def test_the_best_that_is_told_is_the_one_that_is_chosen(
    machines: list[pb.Node], template: pb.TaskTemplate, before: int
) -> None:
    of = {"web": template}
    waiting = worlds.waiting_tasks([("web", before + 1)], of)
    made = scheduler.schedule(machines, [], waiting[:before], of, NOW_MS)
    placed = [one.value for one in made.changes if isinstance(one.value, pb.Task) and one.value.node_id]
    task = waiting[-1]
    answer = why.explain(task, nodes=machines, placed=placed, templates=of, rules=scheduler.Rules(), now_ms=NOW_MS)
    best = answer.nodes[0].node if answer.nodes[0].takes else ""
    assert worlds.chosen(scheduler.schedule(machines, placed, [task], of, NOW_MS)) == {task.meta.id: best}


def forecast(
    service: pb.Service, machines: list[pb.Node], there: list[pb.Task], revisions: list[pb.Revision]
) -> list[tuple[int, str, bool]]:
    present = foresight.Present(nodes=machines, tasks=there, revisions=revisions, rules=scheduler.Rules())
    return [(one.slot, one.node, one.stays) for one in foresight.placements([service], present, NOW_MS).tasks]


def test_recent_failures_are_told_first_and_older_ones_not() -> None:
    failed = [
        build.task(slot, states.FAILED, node=node, ident=f"f-{slot}") for slot, node in enumerate(("n1", "n2", "n2"))
    ]
    old = build.task(9, states.FAILED, node="n3", created_at=NOW_MS - failures.LATELY_MS)
    machines = [build.node("n1"), build.node("n2"), build.node("n3")]
    answer = explained(machines, [*failed, old], build.task(1, states.NEW), build.template())
    assert [(node.node, node.score[0]) for node in answer.nodes] == [
        ("n3", "0 of its tasks there"),
        ("n1", "1 recent failure"),
        ("n2", "2 recent failures"),
    ]


def test_taints_to_be_avoided_are_counted_in_words() -> None:
    machines = [build.node("n1"), build.node("n2")]
    for node, keys in zip(machines, (["a"], ["a", "b"]), strict=True):
        for key in keys:
            node.spec.taints.add(key=key, effect=pb.TAINT_EFFECT_PREFER_NO_SCHEDULE)
    answer = explained(machines, [], build.task(1, states.NEW), build.template())
    assert [node.score[0] for node in answer.nodes] == [
        "1 taint that asks to be avoided",
        "2 taints that ask to be avoided",
    ]


@pytest.mark.parametrize(("since_ms", "expected"), [(1_000, ["n2"] * 3), (failures.LATELY_MS, ["n1", "n1", "n2"])])
def test_a_forecast_of_more_replicas_avoids_what_the_scheduler_avoids(since_ms: int, expected: list[str]) -> None:
    service = build.service(replicas=4)
    failed = build.task(1, states.FAILED, node="n1", created_at=NOW_MS - since_ms)
    there = [failed, build.task(1, node="n2")]
    machines = [build.node("n1"), build.node("n2")]
    revision = build.revision(service)
    told = forecast(service, machines, there, [revision])
    assert [node for _, node, stays in told if not stays] == expected
    waiting = [build.task(slot, states.NEW) for slot in (2, 3, 4)]
    made = scheduler.schedule(machines, there, waiting, {REVISION: revision.template}, NOW_MS)
    assert list(worlds.chosen(made).values()) == expected


def test_a_forecast_of_a_new_service_spreads_it() -> None:
    machines = [build.node("n1"), build.node("n2")]
    assert forecast(build.service(replicas=3), machines, [], []) == [
        (1, "n1", False),
        (2, "n2", False),
        (3, "n1", False),
    ]


def test_a_forecast_leaves_tasks_of_the_same_template_where_they_are() -> None:
    service = build.service(replicas=2)
    there = [build.task(1, node="n2"), build.task(3, node="n1")]
    machines = [build.node("n1"), build.node("n2")]
    assert forecast(service, machines, there, [build.revision(service)]) == [(1, "n2", True), (2, "n1", False)]


def test_a_forecast_of_another_template_begins_anew() -> None:
    service = build.service(replicas=1, image="hello:2")
    there = [build.task(1, node="n2")]
    machines = [build.node("n1"), build.node("n2")]
    assert forecast(service, machines, there, [build.revision(service, image="hello:1")]) == [(1, "n1", False)]


def test_a_forecast_of_a_global_service_tells_of_the_nodes_that_are_for_it() -> None:
    """n1 is not, n2 has no room."""
    service = build.service()
    service.spec.mode = pb.SERVICE_MODE_GLOBAL
    service.spec.template.placement.constraints.append("node.name != n1")
    service.spec.template.container.resources.reservations.cpu = 500
    machines = [build.node("n1"), build.node("n2", cpu=100), build.node("n3")]
    assert forecast(service, machines, [], []) == [(0, "", False), (0, "n3", False)]


def test_a_forecast_tells_how_many_tasks_it_leaves_out() -> None:
    services = [build.service("a", replicas=foresight.MOST - 1), build.service("b", replicas=4), build.service("c")]
    present = foresight.Present(nodes=[build.node("n1")], tasks=[], revisions=[], rules=scheduler.Rules())
    told = foresight.placements(services, present, NOW_MS)
    assert Counter(one.service for one in told.tasks) == {"default/a": foresight.MOST - 1, "default/b": 1}
    assert told.left_out == 3 + 3


def test_a_forecast_tells_what_fits_nowhere() -> None:
    service = build.service(replicas=1)
    service.spec.template.placement.constraints.append("node.name == n9")
    present = foresight.Present(nodes=[build.node("n1")], tasks=[], revisions=[], rules=scheduler.Rules())
    (told,) = foresight.placements([service], present, NOW_MS).tasks
    assert (told.node, told.message) == (
        "",
        "no node takes it: 1 node (n1): constraint node.name == n9 is not fulfilled",
    )


def test_what_no_node_could_take_is_warned_of_at_apply() -> None:
    service = build.service()
    service.spec.template.container.resources.reservations.memory = 2**40
    service.spec.template.placement.near.add(service="dbb")
    nodes = [build.node("n1", state=pb.NODE_STATE_DISCONNECTED)]
    told = warnings.warnings(
        service, images=(), empty=warnings.emptied(nodes), services={"default/db": build.service("db")}
    )
    near = "spec.template.placement.near[0].service"
    assert f'{near}: there is no service default/dbb, so its tasks wait for it; did you mean "db"?' in told
    assert any(
        "even if every node were empty: no node takes it: 1 node (n1): not enough memory: needs 1Ti" in one
        for one in told
    )


def test_taints_are_set_and_removed_by_key_and_effect() -> None:
    gpu = pb.Taint(key="gpu", value="a")
    driving = pb.Taint(key="gpu", effect=pb.TAINT_EFFECT_NO_EXECUTE)
    other = pb.Taint(key="gpu", value="b", effect=pb.TAINT_EFFECT_NO_SCHEDULE)
    assert edits.taints_after([gpu], [driving], []) == [gpu, driving]
    assert edits.taints_after([gpu, driving], [other], []) == [other, driving]
    assert edits.taints_after([gpu, driving], [], ["gpu:no-execute"]) == [gpu]
    assert edits.taints_after([gpu, driving], [], ["gpu"]) == []


def test_defaults_leave_placement_as_it_was_written() -> None:
    """What is left out of a resolved template still has no weight: 0 means that it has to be so."""
    template = pb.TaskTemplate(placement=pb.Placement(apart=[pb.Affinity(service="web")]))
    assert defaults.resolve(template).placement.apart[0].weight == 0

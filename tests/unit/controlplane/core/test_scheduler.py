"""The scheduler spreads, never gives out what is not there, and explains every refusal."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import plan, scheduler
from controlplane.core.failures import LATELY_MS
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

REVISION = "web-1-id-web"
DAY_MS = 86_400_000


def template(*, cpu: int = 0, memory: int = 0, published: int = 0) -> pb.TaskTemplate:
    reservations = pb.ResourceReservations(cpu=cpu, memory=memory)
    ports = [pb.Port(target=80, published=published, mode=pb.PUBLISH_MODE_HOST)] if published else []
    return build.template(resources=pb.Resources(reservations=reservations), ports=ports)


def place(
    nodes: list[pb.Node], count: int, what: pb.TaskTemplate, placed: list[pb.Task] | None = None
) -> dict[str, pb.Task]:
    waiting = [build.task(slot, states.NEW, ident=f"web-{slot}-x") for slot in range(1, count + 1)]
    made = scheduler.schedule(nodes, placed or [], waiting, {REVISION: what}, NOW_MS)
    return {change.value.meta.id: change.value for change in made.changes if isinstance(change.value, pb.Task)}


def counts(placed: dict[str, pb.Task]) -> Counter[str]:
    return Counter(task.node_id for task in placed.values())


def test_replicas_are_spread_evenly() -> None:
    assert counts(place([build.node(f"n{i}") for i in (1, 2, 3)], 9, template())) == {"n1": 3, "n2": 3, "n3": 3}


def test_its_own_tasks_count_before_those_of_others() -> None:
    others = [build.task(1, of="db", revision_id="db-1", node="n2") for _ in range(5)]
    mine = [build.task(7, node="n1")]
    placed = place([build.node("n1"), build.node("n2")], 1, template(), [*others, *mine])
    assert counts(placed) == {"n2": 1}


def test_a_node_where_the_revision_keeps_failing_is_avoided() -> None:
    failed = [build.task(1, states.FAILED, node="n1")]
    busy = [build.task(slot, node="n2") for slot in (2, 3)]
    assert counts(place([build.node("n1"), build.node("n2")], 1, template(), failed + busy)) == {"n2": 1}


def test_it_is_avoided_by_many_at_once() -> None:
    """Whatever tasks the others get of it: a failure counts more than being even."""
    failed = [build.task(1, states.FAILED, node="n1")]
    assert counts(place([build.node("n1"), build.node("n2")], 3, template(), failed)) == {"n2": 3}


@pytest.mark.parametrize(
    ("since_ms", "counts_still"),
    [(0, True), (LATELY_MS - 1, True), (LATELY_MS, False), (30 * DAY_MS, False), (-10_000, True), (-DAY_MS, False)],
)
def test_a_failure_is_forgotten_after_a_while(since_ms: int, counts_still: bool) -> None:
    """Whether the record is there still or not, and whatever the clock of the node says."""
    failed = [build.task(1, states.FAILED, node="n1", created_at=NOW_MS - 40 * DAY_MS, at=NOW_MS - since_ms)]
    placed = place([build.node("n1"), build.node("n2")], 4, template(), failed)
    assert counts(placed) == ({"n2": 4} if counts_still else {"n1": 2, "n2": 2})


def test_no_task_failed_before_it_was_made() -> None:
    """The clock of its node is an hour behind."""
    failed = [build.task(1, states.FAILED, node="n1", created_at=NOW_MS - 1_000, at=NOW_MS - 3_600_000)]
    assert counts(place([build.node("n1"), build.node("n2")], 2, template(), failed)) == {"n2": 2}


def test_what_does_not_fit_waits_and_says_why_most_frequent_reason_first() -> None:
    nodes = [
        build.node("n1", memory=2**20),
        build.node("n2", memory=2**20),
        build.node("n3", availability=pb.AVAILABILITY_PAUSE),
        build.node("n4", state=pb.NODE_STATE_DOWN),
    ]
    task = place(nodes, 1, template(memory=2**30))["web-1-x"]
    assert task.status.state == states.PENDING
    assert [(refusal.filter, refusal.nodes) for refusal in task.status.refusals] == [
        ("memory", 2),
        ("availability", 1),
        ("state", 1),
    ]
    assert task.status.message == (
        "no node takes it: 2 nodes (n1, n2): not enough memory: needs 1Gi, 1Mi is free; "
        "1 node (n3): the node is paused; 1 node (n4): the node is down"
    )


@pytest.mark.parametrize(
    ("what", "needed", "has", "words"),
    [
        ("pids", 300, 800, "not enough processes: needs 300, 200 are free"),
        ("disk", 3 * 2**30, 8 * 2**30, "not enough disk: needs 3Gi, 2Gi is free"),
    ],
)
def test_processes_and_disk_are_given_out_once(what: str, needed: int, has: int, words: str) -> None:
    """Two fit on the node, as tasks that are there count; the third is told how much is missing."""
    node = build.node("n1")
    setattr(node.status.description.capacity, what, has)
    asking = template()
    setattr(asking.container.resources.reservations, what, needed)
    placed = place([node], 2, asking, [build.task(7, node="n1")])
    assert counts(placed) == {"n1": 1, "": 1}
    assert placed["web-2-x"].status.message == f"no node takes it: 1 node (n1): {words}"
    assert counts(place([node], 3, asking)) == {"n1": 2, "": 1}


def test_a_platform_is_a_constraint_like_a_label() -> None:
    """One that a node does not tell is none."""
    nodes = [build.node(name) for name in ("n1", "n2", "n3")]
    nodes[0].status.description.platform, nodes[1].status.description.platform = "linux/amd64", "linux/arm64"
    asking = template()
    asking.placement.constraints.append("node.platform == linux/arm64")
    assert counts(place(nodes, 2, asking)) == {"n2": 2}
    asking.placement.constraints[0] = "node.platform in (linux/amd64, linux/arm64)"
    assert counts(place(nodes, 4, asking)) == {"n1": 2, "n2": 2}


def test_users_of_its_own_are_found_where_they_are_insisted_on() -> None:
    """Written out, a node that cannot give them is none for the task, and says why; left open, any node will do."""
    poor, rich = build.node("n1"), build.node("n2")
    poor.status.description.no_users = "Linux 5.10 has no overlays on idmapped layers"
    insisting = template()
    insisting.container.userns = pb.USER_NAMESPACE_AUTO
    assert counts(place([poor, rich], 4, insisting)) == {"n2": 4}
    assert counts(place([poor, rich], 4, template())) == {"n1": 2, "n2": 2}
    task = place([poor], 1, insisting)["web-1-x"]
    assert task.status.message == (
        "no node takes it: 1 node (n1): the node gives no container users of its own, as `userns: auto` asks: "
        "Linux 5.10 has no overlays on idmapped layers"
    )


def test_an_unchanged_refusal_is_not_written_again() -> None:
    waiting = build.task(1, states.NEW)
    nodes = [build.node("n1", availability=pb.AVAILABILITY_DRAIN)]
    first = scheduler.schedule(nodes, [], [waiting], {REVISION: template()}, NOW_MS)
    pending = first.changes[0].value
    assert isinstance(pending, pb.Task)
    assert scheduler.schedule(nodes, [], [pending], {REVISION: template()}, NOW_MS + 5) == plan.NOTHING


def test_a_cluster_without_nodes_says_so() -> None:
    assert "has no nodes" in place([], 1, template())["web-1-x"].status.message


def test_a_published_port_takes_one_task_a_node() -> None:
    placed = place([build.node("n1"), build.node("n2")], 3, template(published=8080))
    assert counts(placed) == {"n1": 1, "n2": 1, "": 1}
    assert placed["web-3-x"].status.message.endswith("port 8080 is taken by Service default/web")


def test_a_port_that_a_service_publishes_on_every_node_is_free_on_none() -> None:
    waiting = [build.task(1, states.NEW, ident="web-1-x")]
    everywhere = {(pb.PROTOCOL_TCP, 8080): "Service default/front"}
    made = scheduler.schedule(
        [build.node("n1")],
        [],
        waiting,
        {REVISION: template(published=8080)},
        NOW_MS,
        scheduler.Rules(everywhere=everywhere),
    )
    (change,) = made.changes
    assert isinstance(change.value, pb.Task)
    assert change.value.status.message == "no node takes it: 1 node (n1): port 8080 is taken by Service default/front"


def test_ended_tasks_give_back_what_they_took() -> None:
    ended = [build.task(1, states.COMPLETE), build.task(2, states.SHUTDOWN)]
    placed = place([build.node("n1", memory=2**20)], 1, template(memory=2**20), ended)
    assert counts(placed) == {"n1": 1}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 100), st.integers(0, 5)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 60)), min_size=1, max_size=6),
    st.integers(1, 12),
)
def test_no_node_is_ever_given_more_than_it_has(
    sizes: list[tuple[int, int, int]], services: list[tuple[int, int]], replicas: int
) -> None:
    nodes = [
        build.node(f"n{i}", cpu=cpu, memory=memory, tasks=tasks + 1) for i, (cpu, memory, tasks) in enumerate(sizes)
    ]
    templates = {f"r{i}": template(cpu=cpu, memory=memory) for i, (cpu, memory) in enumerate(services)}
    waiting = [
        build.task(slot, states.NEW, of=f"s{name}", revision_id=name) for name in templates for slot in range(replicas)
    ]
    made = scheduler.schedule(nodes, [], waiting, templates, NOW_MS)
    placed = [change.value for change in made.changes if isinstance(change.value, pb.Task) and change.value.node_id]
    for node in nodes:
        here = [
            templates[task.revision_id].container.resources.reservations
            for task in placed
            if task.node_id == node.meta.id
        ]
        capacity = node.status.description.capacity
        assert sum(one.cpu for one in here) <= capacity.cpu
        assert sum(one.memory for one in here) <= capacity.memory
        assert len(here) <= capacity.tasks
    assert len(made.changes) == len(waiting), "every task is placed or told why not"


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_the_input_does_not_matter(order: int) -> None:
    nodes = [build.node(f"n{i}") for i in (1, 2, 3)][::order]
    waiting = [build.task(slot, states.NEW, ident=f"web-{slot}-x") for slot in (1, 2, 3, 4)][::order]
    made = scheduler.schedule(nodes, [], waiting, {REVISION: template()}, NOW_MS)
    chosen = {
        change.value.meta.id: change.value.node_id for change in made.changes if isinstance(change.value, pb.Task)
    }
    assert chosen == {"web-1-x": "n1", "web-2-x": "n2", "web-3-x": "n3", "web-4-x": "n1"}


@pytest.mark.parametrize("slot", [1, 2])
def test_a_service_that_has_become_global_still_places_the_task_that_it_had(slot: int) -> None:
    """One of a node of its own, and one that may be anywhere, both of one revision: neither is placed as the other."""
    targeted, anywhere = (build.task(one, states.NEW, ident=f"web-{one}-x") for one in (slot, 3 - slot))
    targeted.target_node_id = "n3"
    made = scheduler.schedule(
        [build.node(f"n{number}") for number in (1, 2, 3)], [], [targeted, anywhere], {REVISION: template()}, NOW_MS
    )
    homes = {one.value.meta.id: one.value.node_id for one in made.changes if isinstance(one.value, pb.Task)}
    assert homes == {targeted.meta.id: "n3", anywhere.meta.id: "n1"}


def test_a_task_with_a_target_goes_there_or_waits() -> None:
    """Equal tasks for different nodes are looked at one by one, and the reason is that of the one node."""
    waiting = [build.task(0, states.NEW, ident=f"web-n{number}-x") for number in (1, 2, 3)]
    for number, task in enumerate(waiting, start=1):
        task.target_node_id = f"n{number}"
    nodes = [build.node("n1"), build.node("n2", availability=pb.AVAILABILITY_PAUSE), build.node("n3")]
    made = scheduler.schedule(nodes, [], waiting, {REVISION: template()}, NOW_MS)
    placed = {change.value.meta.id: change.value for change in made.changes if isinstance(change.value, pb.Task)}
    assert [placed[f"web-n{number}-x"].node_id for number in (1, 2, 3)] == ["n1", "", "n3"]
    assert placed["web-n2-x"].status.message == "no node takes it: 1 node (n2): the node is paused"

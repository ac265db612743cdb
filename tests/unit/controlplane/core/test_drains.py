"""What is told of a node that is drained: how many tasks it has, who holds it up, and why."""

import pytest

from controlplane.core import disruption, drains, edits, request_errors
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS


def drained() -> pb.Node:
    node = build.node("n1", availability=pb.AVAILABILITY_DRAIN)
    node.meta.generation = 4
    return node


def observed(node: pb.Node, members: list[pb.Task], service: pb.Service | None = None) -> pb.DrainStatus:
    """The progress that is stored, given all tasks of one service."""
    home = drains.Home(service=service or build.service(replicas=3), tasks=members)
    here = [task for task in members if task.node_id == node.meta.id]
    write = drains.observe(node, here, {("default", "web"): home})
    assert write is not None
    assert isinstance(write.value, pb.Node)
    assert drains.observe(write.value, here, {("default", "web"): home}) is None, "told twice, it is the same"
    return write.value.status.drain


def test_an_empty_node_is_drained() -> None:
    ended = build.task(1, states.SHUTDOWN)
    told = observed(drained(), [ended])
    assert (told.observed_generation, told.left, told.message) == (4, 0, "it has no tasks any more")


def test_it_is_said_what_a_task_waits_for() -> None:
    here = build.task(1, ident="web-1-old")
    coming = build.task(1, states.PENDING, ident="web-1-new", message="no node takes it")
    told = observed(drained(), [here, coming])
    assert told.message == "1 task left; web-1-old waits for web-1-new to be ready: no node takes it"


def test_it_is_said_which_service_may_not_miss_another() -> None:
    service = build.service(replicas=2)
    service.spec.disruption.min_available = "2"
    told = observed(drained(), [build.task(1, ident="web-1-a"), build.task(2, node="n2")], service)
    assert told.message == "1 task left; web-1-a waits: web may not miss another one now, see its `disruption`"


def test_those_that_stop_and_those_that_are_too_many_to_name_are_counted() -> None:
    here = [build.task(slot, ready=False, ident=f"web-{slot}") for slot in range(1, 6)]
    here.append(build.task(6, desired=pb.DESIRED_STATE_SHUTDOWN))
    told = observed(drained(), here)
    assert told.left == 6
    assert told.message.startswith("6 tasks left; web-1 is about to leave; ")
    assert told.message.endswith("; and 2 more that wait; 1 stopping")


def test_a_node_that_takes_tasks_again_tells_nothing() -> None:
    node = build.node("n1")
    node.status.drain.left = 3
    write = drains.observe(node, (), {})
    assert write is not None
    assert isinstance(write.value, pb.Node)
    assert not write.value.status.HasField("drain")


def test_two_that_work_in_one_place_count_once() -> None:
    """Of four places three work, one of them doubly: nothing more may be missing."""
    service = build.service(replicas=4)
    members = [build.task(1), build.task(1, node="n2"), build.task(2), build.task(3)]
    assert disruption.allowed(service, members) == 0
    assert disruption.allowed(service, [*members, build.task(4)]) == 1


def changed(node: pb.Node, availability: pb.Availability.ValueType, deadline_ms: int | None) -> pb.Node:
    return edits.update_node(
        node,
        availability=availability,
        set_labels={},
        remove_labels=(),
        deadline_ms=deadline_ms,
        now_ms=NOW_MS,
    )


def test_a_deadline_counts_from_now_and_goes_with_the_drain() -> None:
    node = build.node("n1")
    draining = changed(node, pb.AVAILABILITY_DRAIN, 60_000)
    assert draining.spec.drain_deadline == NOW_MS + 60_000
    assert changed(draining, pb.AVAILABILITY_UNSPECIFIED, None).spec.drain_deadline == NOW_MS + 60_000
    assert changed(draining, pb.AVAILABILITY_DRAIN, None).spec.drain_deadline == 0
    assert changed(draining, pb.AVAILABILITY_ACTIVE, None).spec.drain_deadline == 0


@pytest.mark.parametrize(
    ("availability", "deadline_ms"),
    [(pb.AVAILABILITY_PAUSE, 1), (pb.AVAILABILITY_DRAIN, -1), (pb.AVAILABILITY_DRAIN, 2**62)],
)
def test_a_deadline_that_means_nothing_is_refused(availability: pb.Availability.ValueType, deadline_ms: int) -> None:
    with pytest.raises(request_errors.Invalid):
        changed(build.node("n1"), availability, deadline_ms)

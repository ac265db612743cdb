"""What is told when no node takes a task is short however many nodes there are, and leaves no node out."""

from collections.abc import Callable

import pytest

from controlplane.core import ask as asking
from controlplane.core import fleet, refusals, scheduler
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

NODES = 1_000
MAX_CHARACTERS = 1_500


def machines() -> list[pb.Node]:
    """Nodes of which no two have the same name, label or free memory."""
    made = [build.node(f"n{number:04d}", memory=2**20 * (1 + number)) for number in range(NODES)]
    for node in made:
        node.meta.labels["rack"] = f"rack of {node.meta.name}"
        node.status.description.hostname = f"host-of-{node.meta.name}"
    return made


def only(*constraints: str) -> pb.TaskTemplate:
    return pb.TaskTemplate(placement=pb.Placement(constraints=constraints))


def larger_than_any() -> pb.TaskTemplate:
    return build.template(resources=pb.Resources(reservations=pb.ResourceReservations(memory=2**40)))


def look(nodes: list[pb.Node], template: pb.TaskTemplate, placed: list[pb.Task] | None = None) -> refusals.Look:
    task = build.task(1, states.NEW)
    ships = fleet.survey(nodes, placed or [], {task.revision_id: template}, {})
    return refusals.Look(ships, asking.read(task, template))


@pytest.mark.parametrize(
    "template", [lambda: only("node.labels.rack == none"), larger_than_any], ids=["labels", "memory"]
)
def test_reasons_of_single_nodes_are_few_and_the_rest_is_counted(template: Callable[[], pb.TaskTemplate]) -> None:
    found = look(machines(), template()).refusals()
    assert len(found) == refusals.MAX_REASONS + 1
    assert sum(one.nodes for one in found) == NODES
    assert found[-1].nodes == NODES - refusals.MAX_REASONS
    assert found[-1].detail == refusals.OTHER_REASONS
    assert len(refusals.sentence(found)) < MAX_CHARACTERS


@pytest.mark.parametrize("attribute", ["node.name", "node.id", "node.hostname"])
def test_what_every_node_has_to_itself_is_no_reason_of_its_own(attribute: str) -> None:
    (found,) = look(machines(), only(f"{attribute} == nowhere")).refusals()
    assert (found.nodes, found.detail) == (NODES, f"constraint {attribute} == nowhere is not fulfilled")


def test_nodes_that_have_as_many_of_its_tasks_share_a_reason() -> None:
    template = build.template()
    template.placement.spread.add(by="node.name", max_skew=1)
    nodes = machines()
    empty = nodes.pop()
    empty.status.description.capacity.tasks = 1
    placed = [build.task(slot, node=node.meta.id) for slot, node in enumerate(nodes)]
    placed.append(build.task(NODES, of="other", revision_id="other", node=empty.meta.id))
    found = look([*nodes, empty], template, placed).refusals()
    assert [(one.filter, one.nodes, one.detail) for one in found] == [
        ("spread", NODES - 1, "the node has 1 of its tasks, the emptiest part 0, and maxSkew is 1"),
        ("tasks", 1, "the node has as many tasks as it takes"),
    ]


def test_a_rare_kind_of_reason_is_told_before_the_many_of_one_kind() -> None:
    nodes = machines()
    nodes[-1].spec.availability = pb.AVAILABILITY_DRAIN
    found = look(nodes, larger_than_any()).refusals()
    assert ("availability", "the node is drained") in {(one.filter, one.detail) for one in found}
    assert {one.filter for one in found} == {"availability", "memory"}


def test_tasks_of_single_nodes_are_told_of_their_own_node() -> None:
    nodes = machines()[:3]
    template = larger_than_any()
    waiting = [build.task(0, states.NEW, ident=node.meta.id) for node in nodes]
    for task, node in zip(waiting, nodes, strict=True):
        task.target_node_id = node.meta.id
    made = scheduler.schedule(nodes, [], waiting, {waiting[0].revision_id: template}, NOW_MS)
    told = {one.value.meta.id: one.value.status.message for one in made.changes if isinstance(one.value, pb.Task)}
    assert told == {
        f"n{number:04d}": f"no node takes it: 1 node (n{number:04d}): "
        f"not enough memory: needs 1Ti, {number + 1}Mi is free"
        for number in range(3)
    }

"""Which places a service has: slots by number, or the nodes that fit, also while one is out of reach."""

import pytest

from controlplane.core import eligibility, places
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build

NOWHERE: frozenset[str] = frozenset()


def wanted(node: pb.Node, occupied: frozenset[str] = NOWHERE) -> list[places.Place]:
    """Of a global service on one node."""
    service = build.service()
    service.spec.mode = pb.SERVICE_MODE_GLOBAL
    return places.wanted(service, service.spec.template, [node], occupied)


def test_slots_are_numbered_from_one() -> None:
    service = build.service(replicas=2)
    assert [one.key for one in places.wanted(service, service.spec.template, [], NOWHERE)] == [(1, ""), (2, "")]
    service.spec.stopped = True
    assert places.wanted(service, service.spec.template, [], NOWHERE) == []


@pytest.mark.parametrize(
    ("state", "availability", "empty", "occupied"),
    [
        (pb.NODE_STATE_READY, pb.AVAILABILITY_ACTIVE, "open", "open"),
        (pb.NODE_STATE_READY, pb.AVAILABILITY_PAUSE, "none", "held"),
        (pb.NODE_STATE_READY, pb.AVAILABILITY_DRAIN, "none", "none"),
        (pb.NODE_STATE_DISCONNECTED, pb.AVAILABILITY_ACTIVE, "none", "held"),
        (pb.NODE_STATE_DISCONNECTED, pb.AVAILABILITY_DRAIN, "none", "held"),
        (pb.NODE_STATE_DOWN, pb.AVAILABILITY_ACTIVE, "none", "held"),
    ],
)
def test_a_node_is_a_place_when_it_takes_tasks_or_has_one(
    state: pb.NodeState.ValueType, availability: pb.Availability.ValueType, empty: str, occupied: str
) -> None:
    node = build.node("n1", state=state, availability=availability)

    def found(where: frozenset[str]) -> str:
        of_node = wanted(node, where)
        return ("held" if of_node[0].held else "open") if of_node else "none"

    assert (found(NOWHERE), found(frozenset({"n1"}))) == (empty, occupied)


@pytest.mark.parametrize(
    ("userns", "no_users", "fits"),
    [
        (pb.USER_NAMESPACE_AUTO, "the kernel is too old", False),
        (pb.USER_NAMESPACE_AUTO, "", True),
        (pb.USER_NAMESPACE_HOST, "the kernel is too old", True),
    ],
)
def test_a_node_that_cannot_run_the_template_is_none_of_them(
    userns: pb.UserNamespace.ValueType, no_users: str, fits: bool
) -> None:
    service, node = build.service(), build.node("n1")
    service.spec.template.container.userns = userns
    node.status.description.no_users = no_users
    assert eligibility.eligible(service.spec.template, node) == fits

"""What a call does, for the audit log."""

import pytest

from controlplane.core.trust import deeds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2, trust_pb2

CREATED, CHANGED = pb.APPLY_ACTION_CREATED, pb.APPLY_ACTION_CHANGED
UNCHANGED, PRUNED = pb.APPLY_ACTION_UNCHANGED, pb.APPLY_ACTION_PRUNED


def service(name: str) -> objects_pb2.Object:
    return objects_pb2.Object(service=objects_pb2.Service(meta=objects_pb2.Meta(name=name, namespace="shop")))


def answer(*results: "tuple[str, pb.ApplyAction]") -> pb.ApplyResponse:
    return pb.ApplyResponse(results=[pb.ApplyResult(object=service(name), action=action) for name, action in results])


def test_an_apply_names_what_it_changed_and_first_what_it_ended() -> None:
    """What was there as it is wanted is no news."""
    request = pb.ApplyRequest(objects=[service("web"), service("db"), service("new")], stack="shop", prune=True)
    done = answer(("web", UNCHANGED), ("db", CHANGED), ("new", CREATED), ("old", PRUNED))
    assert deeds.objects(request, done) == ["service shop/old (ended)", "service shop/db", "service shop/new"]


def test_an_apply_that_was_not_done_names_what_it_asked_for() -> None:
    """With that more was to end: which, nobody has looked."""
    request = pb.ApplyRequest(objects=[service("web")], stack="shop", prune=True)
    assert deeds.objects(request) == ["what else stack shop has", "service shop/web"]


def test_of_many_objects_it_is_said_how_many_are_left_out() -> None:
    """What has ended comes before all others."""
    there = [(f"s{number}", CREATED) for number in range(30)]
    named = deeds.objects(pb.ApplyRequest(), answer(*there, ("old", PRUNED)))
    assert (named[0], named[-1], len(named)) == ("service shop/old (ended)", "and 11 more", deeds.MAX_OBJECTS + 1)
    exactly = answer(*there[: deeds.MAX_OBJECTS])
    assert deeds.objects(pb.ApplyRequest(), exactly)[-1] == f"service shop/s{deeds.MAX_OBJECTS - 1}"


def test_an_exchange_of_the_root_is_told_with_what_was_done() -> None:
    """Begun, and without whom it ended; those who had come are not left behind by it."""
    asked = trust_pb2.RotateRootRequest(begin=True, left_behind=["node:n1", "node:n2"])
    assert deeds.objects(asked) == ["a new root", "node:n1 left behind", "node:n2 left behind"]
    done = trust_pb2.RotateRootResponse(left_behind=["node:n2"])
    assert deeds.objects(trust_pb2.RotateRootRequest(left_behind=asked.left_behind), done) == ["node:n2 left behind"]
    assert deeds.objects(trust_pb2.RotateRootRequest(begin=True), trust_pb2.RotateRootResponse()) == ["a new root"]


@pytest.mark.parametrize(
    ("request_", "looks"),
    [
        (trust_pb2.RotateRootRequest(), True),
        (trust_pb2.RotateRootRequest(begin=True), False),
        (trust_pb2.RotateRootRequest(left_behind=["node:n1"]), False),
        (pb.ApplyRequest(dry_run=True), True),
        (pb.ApplyRequest(), False),
        (pb.DeleteRequest(), False),
        (None, False),
    ],
)
def test_some_calls_only_look(request_: object, looks: bool) -> None:
    assert deeds.only_looks(request_) is looks


def test_a_call_may_have_changed_nothing() -> None:
    """Whoever waits for an exchange asks twice a second whether it has ended without somebody."""
    waiting = trust_pb2.RotateRootRequest(left_behind=["node:n1"])
    assert deeds.changed_nothing(waiting, trust_pb2.RotateRootResponse(rotating=True))
    assert not deeds.changed_nothing(waiting, trust_pb2.RotateRootResponse(left_behind=["node:n1"]))
    assert not deeds.changed_nothing(trust_pb2.RotateRootRequest(begin=True), trust_pb2.RotateRootResponse())
    assert deeds.changed_nothing(pb.ApplyRequest(), answer(("web", UNCHANGED)))
    assert not deeds.changed_nothing(pb.ApplyRequest(), answer(("web", UNCHANGED), ("old", PRUNED)))
    assert not deeds.changed_nothing(pb.DeleteRequest(), pb.DeleteResponse())

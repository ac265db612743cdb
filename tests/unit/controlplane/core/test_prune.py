"""Which objects go with a stack's files, and what refuses it."""

import pytest

from controlplane.core import plan, prune
from controlplane.core import request_errors as errors
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

NOW_MS = 1_700_000_000_000


def meta(name: str, stack: str = "shop", namespace: str = "default") -> pb.Meta:
    return pb.Meta(id=f"id-{namespace}-{name}", name=name, namespace=namespace, stack=stack, version=7)


def service(
    name: str, *, networks: tuple[str, ...] = (), stack: str = "shop", namespace: str = "default"
) -> pb.Service:
    return pb.Service(meta=meta(name, stack, namespace), spec=pb.ServiceSpec(networks=networks))


def network(name: str, *, stack: str = "shop") -> pb.Network:
    return pb.Network(meta=meta(name, stack))


WEB, OLD, BACK = service("web"), service("old", networks=("back",)), network("back")


def names(values: list[kinds.StoredObject]) -> list[str]:
    return [f"{kinds.of(value).name}/{value.meta.name}" for value in values]


def test_what_the_files_do_not_have_goes_services_first() -> None:
    assert names(prune.missing([BACK, WEB, OLD], [WEB])) == ["service/old", "network/back"]


def test_other_stacks_other_namespaces_and_other_kinds_stay() -> None:
    node = pb.Node(meta=pb.Meta(id="n", name="n1", stack="shop"))
    there = [WEB, service("a", stack=""), service("b", stack="blog"), service("c", namespace="other"), node]
    assert prune.missing(there, [WEB]) == []


def test_what_is_being_deleted_already_is_left_alone() -> None:
    going = plan.copy(OLD)
    going.meta.deleted_at = NOW_MS
    assert prune.missing([WEB, going], [WEB]) == []


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([service("web", stack="")], "which stack is to be pruned"),
        ([service("web"), service("blog", stack="blog")], "2 stacks: blog, shop"),
        ([pb.Node(meta=pb.Meta(name="n1"))], "which stack is to be pruned"),
    ],
)
def test_a_stack_has_to_be_clear(wanted: list[kinds.StoredObject], message: str) -> None:
    with pytest.raises(errors.Invalid, match=message):
        prune.missing([], wanted)


def decide(doomed: list[kinds.StoredObject], wanted: list[kinds.StoredObject], *agreed: str) -> prune.Pruning:
    return prune.decide(doomed, [WEB, OLD, BACK], wanted, agreed=agreed, now_ms=NOW_MS)


def test_services_are_told_to_go_and_networks_go() -> None:
    made = decide([OLD, BACK], [WEB], OLD.meta.id, BACK.meta.id)
    assert [change.describe() for change in made.changes] == [
        "write Service default/old: pruned",
        "remove Network default/back: pruned",
    ]
    assert made.changes[0].value.meta.deleted_at == NOW_MS
    assert not OLD.meta.deleted_at, "what was read is not touched"
    left = list(made.others([WEB, OLD, BACK]))
    assert names(left) == ["service/web", "service/old"]
    assert left[1].meta.deleted_at == NOW_MS


def test_nothing_goes_that_nobody_agreed_to() -> None:
    with pytest.raises(errors.Outdated, match="Network default/back is in the stack, too"):
        decide([OLD, BACK], [WEB], OLD.meta.id)


def test_a_look_needs_no_agreement() -> None:
    made = prune.decide([OLD], [WEB, OLD], [WEB], agreed=None, now_ms=NOW_MS)
    assert [result.after.meta.name for result in made.results()] == ["old"]


def test_a_network_that_is_used_stays_and_refuses_everything() -> None:
    """By a service of another stack, or by one of the same apply."""
    user = service("web", networks=("back",))
    with pytest.raises(errors.NotNow, match="Network default/back is used by Service default/web"):
        prune.decide([BACK], [WEB, BACK], [user], agreed=[BACK.meta.id], now_ms=NOW_MS)

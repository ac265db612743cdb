"""The table of who may call what."""

import importlib

import hypothesis
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import strategies as st

from controlplane.core import request_errors as errors
from controlplane.core.trust import rules
from protos import generate
from protos.orch.v1 import control_pb2, objects_pb2
from trust.core.identity import PEOPLE, Identity, Role

FILES = [
    health_pb2,
    *(
        importlib.import_module(f"protos.orch.v1.{path.stem}_pb2")
        for path in (generate.ROOT / generate.FOLDER).glob("*.proto")
    ),
]
CALLS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
READS_OF_PEOPLE = {"Get", "List", "Watch", "Logs", "Usage", "Why", "Version", "Renew", "Confirm"}
CHANGES = {"Apply", "Delete", "Scale", "UpdateMeta", "Rollout", "Exec", "ImportImage", "CheckNetwork", "Diagnose"}
CHANGES |= {"Commit", "MissingBlobs", "PushBlob", "PushImage", "Rebalance"}
ADMINS = {"UpdateNode", "ListTokens", "CreateToken", "RevokeToken", "ListMembers", "RevokeMember", "RotateRoot"}
ADMINS |= {"ListAudit"}
NODES = {"Session", "Stream", "ResolveImage", "FindBlob", "MayFetch", "Fetch", "Version", "Renew", "Confirm", "MayRead"}
MAY = {
    Role.ADMIN: READS_OF_PEOPLE | CHANGES | ADMINS,
    Role.EDITOR: READS_OF_PEOPLE | CHANGES,
    Role.VIEWER: READS_OF_PEOPLE,
    Role.NODE: NODES,
    Role.CONTROLPLANE: {"Fetch", "Version", "Renew", "Examine"},
}


def caller(role: Role, *namespaces: str) -> rules.Caller:
    return rules.Caller(identity=Identity(cluster="c", role=role, name="ann"), namespaces=namespaces)


def test_the_calls_of_every_file_are_known_here() -> None:
    """So that the next test looks at all of them, those of a new file too."""
    assert len(FILES) > 4
    assert {"/orch.v1.Control/Apply", "/orch.v1.Dispatcher/Session", "/orch.v1.Trust/Renew"} <= CALLS.keys()


def test_no_call_is_without_a_rule_and_no_rule_without_a_call() -> None:
    """The descriptors say what can be called."""
    assert rules.RULES.keys() == {*CALLS, rules.METRICS}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", sorted(CALLS))
def test_each_role_makes_the_calls_that_are_its_own_and_no_others(role: Role, method: str) -> None:
    """Written out once more here, by hand: the table and this list have to agree."""
    if method.startswith("/grpc.health.v1.Health/") or method.rpartition("/")[2] in MAY[role]:
        assert rules.check(method, caller(role)) is rules.RULES[method]
        return
    with pytest.raises(errors.Forbidden, match=f"{role} ann may not call") as refused:
        rules.check(method, caller(role))
    assert refused.value.hint.endswith(" may")


def test_a_call_without_a_rule_is_refused_to_an_admin() -> None:
    """Nothing is open because it was forgotten."""
    with pytest.raises(errors.Forbidden, match="has no rule"):
        rules.check("/orch.v1.Control/Forgotten", caller(Role.ADMIN))


def reference(kind: str, namespace: str = "") -> control_pb2.DeleteRequest:
    return control_pb2.DeleteRequest(reference=control_pb2.ObjectReference(kind=kind, name="x", namespace=namespace))


def allowed(method: str, who: rules.Caller, request: object) -> bool:
    method = f"/orch.v1.Control/{method}"
    try:
        rules.check_request(method, rules.check(method, who), who, request)
    except errors.Forbidden as refused:
        return not refused.hint  # a refusal without a remedy counts as none, so that a test fails
    return True


def test_who_is_bound_to_namespaces_reaches_no_other() -> None:
    """The empty namespace of a request means `default`."""
    bound = caller(Role.EDITOR, "shop")
    assert allowed("Delete", bound, reference("service", "shop"))
    assert not allowed("Delete", bound, reference("service", "bank"))
    assert not allowed("Delete", bound, reference("service"))
    assert allowed("Delete", caller(Role.EDITOR, "default"), reference("service"))
    assert allowed("Delete", caller(Role.EDITOR), reference("service", "bank"))


def test_who_is_bound_lists_and_watches_one_namespace_at_a_time() -> None:
    """A list of everything would show the others."""
    bound = caller(Role.VIEWER, "shop")
    in_shop, anywhere = (control_pb2.ListRequest(kind="task", namespace=name) for name in ("shop", ""))
    assert allowed("List", bound, in_shop)
    assert not allowed("List", bound, anywhere)
    assert not allowed("Watch", bound, control_pb2.WatchRequest(selections=[in_shop, anywhere]))
    assert allowed("List", bound, control_pb2.ListRequest(kind="node"))
    assert not allowed("Usage", bound, control_pb2.UsageRequest())


def test_what_belongs_to_the_whole_cluster_is_changed_by_admins_only() -> None:
    """Nodes by admins, images by editors too; by nobody who is bound to a namespace."""
    assert allowed("Delete", caller(Role.ADMIN), reference("node"))
    assert not allowed("Delete", caller(Role.EDITOR), reference("node"))
    assert not allowed("Delete", caller(Role.ADMIN, "shop"), reference("node"))
    assert allowed("ImportImage", caller(Role.EDITOR), control_pb2.ImportImageRequest())
    assert not allowed("ImportImage", caller(Role.EDITOR, "shop"), control_pb2.ImportImageRequest())
    assert allowed("PushImage", caller(Role.EDITOR), control_pb2.PushImageRequest())
    assert not allowed("PushImage", caller(Role.EDITOR, "shop"), control_pb2.PushImageRequest())
    assert not allowed("Rebalance", caller(Role.EDITOR, "shop"), control_pb2.RebalanceRequest())


@pytest.mark.parametrize("call", ["ListAudit", "ListMembers", "ListTokens", "MissingBlobs"])
def test_what_is_of_all_namespaces_is_read_by_nobody_who_is_bound_to_one(call: str) -> None:
    """The audit log names the objects of all of them. Nothing is changed by a look."""
    method = next(one for one in CALLS if one.endswith(f"/{call}"))
    rule, request = rules.RULES[method], CALLS[method].input_type._concrete_class()
    assert rule.reads
    rules.check_request(method, rule, caller(Role.ADMIN), request)
    with pytest.raises(errors.Forbidden, match="for what belongs to the whole cluster") as refused:
        rules.check_request(method, rule, caller(Role.ADMIN, "shop"), request)
    assert refused.value.hint.endswith("when bound to no namespace")


def test_an_apply_is_refused_for_one_object_that_is_out_of_bounds() -> None:
    """All or nothing, as the apply itself."""
    inside = objects_pb2.Object(service=objects_pb2.Service(meta=objects_pb2.Meta(name="a", namespace="shop")))
    outside = objects_pb2.Object(service=objects_pb2.Service(meta=objects_pb2.Meta(name="b", namespace="bank")))
    node = objects_pb2.Object(node=objects_pb2.Node(meta=objects_pb2.Meta(name="n1")))
    bound = caller(Role.EDITOR, "shop")
    assert allowed("Apply", bound, control_pb2.ApplyRequest(objects=[inside]))
    assert not allowed("Apply", bound, control_pb2.ApplyRequest(objects=[inside, outside]))
    assert not allowed("Apply", bound, control_pb2.ApplyRequest(objects=[inside, node]))
    assert not allowed("Apply", caller(Role.EDITOR), control_pb2.ApplyRequest(objects=[node]))


@hypothesis.given(
    role=st.sampled_from(sorted(PEOPLE)), method=st.sampled_from(sorted(CALLS)), bound=st.text("ab", min_size=1)
)
def test_an_empty_request_never_widens_what_the_bound_may_do(role: Role, method: str, bound: str) -> None:
    """Whatever a bound person may call with an empty request, the unbound one may."""
    request = CALLS[method].input_type._concrete_class()
    short = method.rpartition("/")[2]
    if short not in MAY[role] or not method.startswith("/orch.v1.Control/"):
        return
    assert not allowed(short, caller(role, bound), request) or allowed(short, caller(role), request)

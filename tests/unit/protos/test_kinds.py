"""Kinds, their keys and their envelopes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

META = pb.Meta(id="i1", name="web", namespace="default")
OBJECTS = [kind.message(meta=META) for kind in kinds.KINDS]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_an_object_is_found_again_from_its_key_and_in_its_envelope(value: kinds.StoredObject) -> None:
    assert kinds.kind_of_key(kinds.key(value)) is kinds.of(value)
    assert kinds.unwrap(kinds.wrap(value)) == value
    assert kinds.key(value).startswith(kinds.prefix(kinds.of(value)))


def test_every_kind_has_a_place_in_the_envelope() -> None:
    assert [field.name for field in pb.Object.DESCRIPTOR.fields] == [kind.name for kind in kinds.KINDS]
    assert all(kinds.by_name(kind.name) is kind for kind in kinds.KINDS)


def test_keys() -> None:
    assert kinds.key(pb.Service(meta=META)) == "/orch/service/default/web"
    assert kinds.key(pb.Task(meta=META)) == "/orch/task/default/i1"
    assert kinds.key(pb.Node(meta=META)) == "/orch/node/_/i1"
    assert kinds.key(pb.Image(meta=pb.Meta(name="r:5000/a/b@sha256:1"))) == "/orch/image/_/r:5000%2Fa%2Fb@sha256:1"
    assert kinds.prefix(kinds.KINDS[0], "default") == "/orch/service/default/"


@given(first=st.text(min_size=1), second=st.text(min_size=1))
def test_two_names_have_two_keys(first: str, second: str) -> None:
    """Whatever a name holds, it stays within its own step of the key."""
    keys = [kinds.key_of(kinds.KINDS[0], "default", name) for name in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)
    assert all(key.count("/") == 4 for key in keys)


@pytest.mark.parametrize(("namespace", "name"), [("", "web"), ("default", "")])
def test_a_key_has_no_empty_step(namespace: str, name: str) -> None:
    with pytest.raises(AssertionError, match="a service's key needs a name"):
        kinds.key_of(kinds.KINDS[0], namespace, name)


def test_an_empty_envelope_is_refused() -> None:
    with pytest.raises(ValueError, match="an object without a kind"):
        kinds.unwrap(pb.Object())


def test_unknown_names_and_keys_have_no_kind() -> None:
    assert kinds.by_name("deployment") is None
    assert kinds.kind_of_key("/orch/deployment/default/web") is None


def test_labels_name_an_object() -> None:
    assert kinds.label(pb.Service(meta=META)) == "Service default/web"
    assert kinds.label(pb.Node(meta=META)) == "Node web"
    assert kinds.label(pb.Task(meta=pb.Meta(id="i1", namespace="default"))) == "Task default/i1"


def test_a_service_is_called_the_same_by_itself_and_by_its_tasks() -> None:
    meta = pb.Meta(name="web-1-k7x2m9q4", namespace="shop")
    web = pb.Service(meta=pb.Meta(name="web", namespace="shop"))
    assert kinds.qualified(web) == "shop/web"
    assert kinds.service_of(pb.Task(meta=meta, service="web")) == "shop/web"
    assert kinds.service_of(pb.Revision(meta=meta, service="web")) == "shop/web"


def test_people_write_some_kinds_only() -> None:
    assert {kind.title for kind in kinds.written_by_people()} == {"Service", "Node", "Network"}

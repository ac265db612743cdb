"""Objects to bytes and back."""

import pytest

from controlplane.store import api, errors, typed
from protos.orch.v1 import objects_pb2 as pb


def service(version: int = 0) -> pb.Service:
    meta = pb.Meta(id="s1", name="web", namespace="default", version=version, labels={"b": "2", "a": "1"})
    return pb.Service(meta=meta, spec=pb.ServiceSpec(replicas=3))


def test_the_version_comes_from_the_entry_and_is_not_stored() -> None:
    put = typed.put(service(version=7))
    assert put.key == "/orch/service/default/web"
    assert put.expect == 7
    assert pb.Service.FromString(put.value).meta.version == 0
    assert typed.decode(put.key, put.value, 9) == service(version=9)


def test_encoding_leaves_the_object_as_it_was_and_equal_objects_are_equal_bytes() -> None:
    value = service(version=7)
    other = pb.Service(meta=pb.Meta(labels={"a": "1", "b": "2"}))
    other.MergeFrom(service(version=8))
    assert typed.encode(value) == typed.encode(other)
    assert value == service(version=7)


def test_an_object_that_was_never_stored_is_created() -> None:
    assert typed.put(service()).expect == 0
    assert typed.overwrite(service()).expect is None


def test_a_delete_expects_what_was_read() -> None:
    assert typed.delete(service(version=7)) == api.Delete(key="/orch/service/default/web", expect=7)
    with pytest.raises(AssertionError, match="default/web was never read"):
        typed.delete(service())


def test_kinds_of_a_newer_release_are_left_alone_and_broken_bytes_are_not() -> None:
    assert typed.decode("/orch/hologram/default/x", b"whatever", 3) is None
    assert typed.decode("/orch-election/leader", b"{}", 3) is None
    with pytest.raises(errors.Fatal, match=r"/orch/service/default/web \(version 3\) are no Service"):
        typed.decode("/orch/service/default/web", b"\xff\xff\xff", 3)

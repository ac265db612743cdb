"""The exchange of the store's root, step by step, from what is stored alone."""

from collections.abc import Sequence

import pytest

from controlplane.core import request_errors as errors
from controlplane.core.trust import rotation, store_rotation
from protos.orch.v1 import trust_pb2 as pb
from trust import errands

NOW_MS = 1_800_000_000_000
SEALING = b"s" * 32


@pytest.fixture(scope="module")
def roots() -> tuple[pb.RootRecord, pb.RootRecord]:
    """An old one, and a new one that it has signed across."""
    old, new = errands.roots("c", ("store", "store 2"), SEALING, NOW_MS)
    cross = errands.cross(new, old, SEALING, NOW_MS)
    return (
        pb.RootRecord(certificate=old.certificate, sealed_key=old.sealed_key),
        pb.RootRecord(certificate=new.certificate, sealed_key=new.sealed_key, cross_certificate=cross),
    )


def instance(name: str, **standing: str) -> pb.MemberRecord:
    return pb.MemberRecord(name=f"controlplane:{name}", role="controlplane", store=pb.StoreStanding(**standing))


def node(name: str) -> pb.MemberRecord:
    """One that has nothing to do with the store."""
    return pb.MemberRecord(name=f"node:{name}", role="node")


def begun(roots: tuple[pb.RootRecord, pb.RootRecord]) -> pb.TrustRecord:
    return store_rotation.begin(pb.TrustRecord(cluster="c", store_root=roots[0]), roots[1])


def dropping(roots: tuple[pb.RootRecord, pb.RootRecord]) -> pb.TrustRecord:
    after = store_rotation.advance(begun(roots), []).next
    assert after is not None
    return after


def test_both_are_believed_until_every_instance_has_certificates_of_the_new_one(
    roots: tuple[pb.RootRecord, pb.RootRecord],
) -> None:
    """Then the old one is gone with its key; the certificate across stays, for members that believe the old one yet."""
    old, new = roots
    between, pin = begun(roots), rotation.pin(new)
    assert between.store_root == new
    assert store_rotation.bundle(between) == new.certificate + old.certificate
    first, second = instance("cp1", issued_by=pin), instance("cp2", issued_by=rotation.pin(old))
    step = store_rotation.advance(between, [second, node("n1"), first])
    assert (step.next, step.waiting_for) == (None, ["controlplane:cp2"])

    after = store_rotation.advance(between, [first, instance("cp2", issued_by=pin), node("n1")]).next
    assert after is not None
    assert after.store_rotation == store_rotation.DROPPING
    assert not after.HasField("old_store_root")
    assert store_rotation.bundle(after) == new.certificate
    assert after.store_root.cross_certificate == new.cross_certificate


@pytest.mark.parametrize(
    ("done", "turn"),
    [
        ((), "controlplane:cp1"),
        (("cp1",), "controlplane:cp2"),
        (("cp2",), "controlplane:cp1"),
        (("cp1", "cp2"), "controlplane:cp3"),
        (("cp1", "cp2", "cp3"), ""),
    ],
)
def test_one_has_its_turn_until_it_has_reported(
    roots: tuple[pb.RootRecord, pb.RootRecord], done: Sequence[str], turn: str
) -> None:
    """In whatever order the records are looked at: there are never two."""
    trust, pin = dropping(roots), rotation.pin(roots[1])
    records = [instance(one, issued_by=pin, believes=pin if one in done else "") for one in ("cp3", "cp1", "cp2")]
    assert store_rotation.turn(trust, records) == turn
    assert store_rotation.turn(trust, reversed(records)) == turn
    ended = store_rotation.advance(trust, records).next
    assert (ended is not None) == (not turn)
    if ended is not None:
        assert ended == pb.TrustRecord(
            cluster="c",
            store_root=pb.RootRecord(certificate=roots[1].certificate, sealed_key=roots[1].sealed_key),
        )


def test_nobody_has_a_turn_before_everybody_has_certificates(roots: tuple[pb.RootRecord, pb.RootRecord]) -> None:
    """A member that believes the new root alone would refuse who has none of it."""
    assert store_rotation.turn(begun(roots), [instance("cp1", issued_by=rotation.pin(roots[1]))]) == ""
    assert store_rotation.turn(pb.TrustRecord(store_root=roots[0]), [instance("cp1")]) == ""


def test_what_was_reported_in_an_exchange_before_counts_for_nothing(
    roots: tuple[pb.RootRecord, pb.RootRecord],
) -> None:
    """It names another root."""
    pin = rotation.pin(roots[0])
    record = instance("cp1", issued_by=pin, believes=pin)
    assert store_rotation.advance(begun(roots), [record]).waiting_for == ["controlplane:cp1"]
    assert store_rotation.turn(dropping(roots), [record]) == "controlplane:cp1"


def test_why_an_instance_does_not_go_on_is_told_beside_its_name(roots: tuple[pb.RootRecord, pb.RootRecord]) -> None:
    """As it reports it."""
    step = store_rotation.advance(dropping(roots), [instance("cp1", problem="restart orch-etcd there")])
    assert step.waiting_for == ["controlplane:cp1: restart orch-etcd there"]


def test_a_second_exchange_waits_for_the_first(roots: tuple[pb.RootRecord, pb.RootRecord]) -> None:
    """In either of its phases."""
    for trust in (begun(roots), dropping(roots)):
        with pytest.raises(errors.NotNow, match="being exchanged already"):
            store_rotation.begin(trust, roots[1])


def test_a_store_that_is_made_anew_has_no_exchange_to_go_on_with(roots: tuple[pb.RootRecord, pb.RootRecord]) -> None:
    """All certificates for it are made of the new root."""
    for trust in (begun(roots), dropping(roots)):
        ended = store_rotation.ended(trust)
        assert store_rotation.bundle(ended) == roots[1].certificate
        assert (ended.store_rotation, ended.store_root.cross_certificate) == (0, "")
    assert not store_rotation.ended(pb.TrustRecord(cluster="c")).HasField("store_root")

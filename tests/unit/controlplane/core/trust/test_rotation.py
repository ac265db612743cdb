"""The exchange of a root, step by step, from what is stored alone."""

import pytest

from controlplane.core import request_errors as errors
from controlplane.core.trust import admission, rotation
from protos.orch.v1 import trust_pb2 as pb
from trust import errands

NOW_MS = 1_800_000_000_000
SEALING = b"s" * 32


@pytest.fixture(scope="module")
def roots() -> tuple[pb.RootRecord, pb.RootRecord]:
    """An old one, and a new one that it has signed across."""
    old, new = (errands.root("c", name, SEALING, NOW_MS) for name in ("first", "second"))
    cross = errands.cross(new, old, SEALING, NOW_MS)
    return (
        pb.RootRecord(certificate=old.certificate, sealed_key=old.sealed_key),
        pb.RootRecord(certificate=new.certificate, sealed_key=new.sealed_key, cross_certificate=cross),
    )


def member(name: str, root: str, *, expires_at: int = NOW_MS + 1) -> pb.MemberRecord:
    return pb.MemberRecord(name=name, keys=[pb.MemberKey(digest=name, root=root, expires_at=expires_at)])


def test_the_old_root_goes_once_everybody_has_a_certificate_of_the_new_one(
    roots: tuple[pb.RootRecord, pb.RootRecord],
) -> None:
    """Until then both are trusted; after it no token is left that pins the old one."""
    old, new = roots
    before = pb.TrustRecord(cluster="c", roots=[old], tokens=[pb.TokenRecord(id="t")])
    between = rotation.begin(before, new)
    assert [rotation.pin(root) for root in between.roots] == [rotation.pin(new), rotation.pin(old)]
    assert rotation.bundle(between) == new.certificate + old.certificate

    n1, n2 = member("n1", rotation.pin(new)), member("n2", rotation.pin(old))
    assert rotation.advance(between, [n1, n2], NOW_MS).waiting_for == ["n2"]

    after = rotation.advance(between, [n1, member("n2", rotation.pin(new))], NOW_MS).next
    assert after is not None
    assert [root.certificate for root in after.roots] == [new.certificate]
    assert not after.tokens
    assert rotation.advance(after, [n1], NOW_MS) == rotation.Step()


def test_a_certificate_that_may_not_have_come_is_waited_for(roots: tuple[pb.RootRecord, pb.RootRecord]) -> None:
    """By its record the member has one of the new root; until it says so its answer may be lost."""
    between = rotation.begin(pb.TrustRecord(roots=[roots[0]]), roots[1])
    asked = member("n1", rotation.pin(roots[0]))
    key = pb.MemberKey(digest="second", root=rotation.pin(roots[1]), expires_at=NOW_MS + 1, unconfirmed=True)
    asked = admission.with_key(pb.MemberRecord(name="n1", role="node", keys=asked.keys), key, used="n1")
    assert rotation.advance(between, [asked], NOW_MS).waiting_for == ["n1"]
    other = admission.confirmed(asked, "n1")
    assert rotation.advance(between, [other], NOW_MS).waiting_for == ["n1"], "it has called with the one before"
    there = admission.confirmed(asked, "second")
    assert [one.digest for one in there.keys] == ["second", "n1"]
    assert rotation.advance(between, [there], NOW_MS).next is not None
    assert rotation.advance(between, [asked], NOW_MS, left_behind=["n1"]).next is not None


def test_who_is_left_behind_or_has_no_valid_certificate_is_not_waited_for(
    roots: tuple[pb.RootRecord, pb.RootRecord],
) -> None:
    """A node that burned down does not hold up the exchange for ever."""
    between = rotation.begin(pb.TrustRecord(roots=[roots[0]]), roots[1])
    gone, late = member("gone", rotation.pin(roots[0])), member("late", rotation.pin(roots[0]), expires_at=NOW_MS)
    assert rotation.advance(between, [gone, late], NOW_MS).waiting_for == ["gone"]
    step = rotation.advance(between, [gone, late], NOW_MS, left_behind=["gone", "nobody"])
    assert (step.next is not None, step.left_behind) == (True, ["gone"])


def test_a_second_exchange_waits_for_the_first(roots: tuple[pb.RootRecord, pb.RootRecord]) -> None:
    """Three roots at once would need three certificates across."""
    between = rotation.begin(pb.TrustRecord(roots=[roots[0]]), roots[1])
    with pytest.raises(errors.NotNow, match="being exchanged already"):
        rotation.begin(between, roots[1])

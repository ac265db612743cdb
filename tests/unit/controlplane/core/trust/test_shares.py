"""Whose records the audit log keeps."""

from collections import Counter

import hypothesis
from hypothesis import strategies as st

from controlplane.core.trust import shares
from protos.orch.v1 import trust_pb2 as pb

SHARES = st.lists(st.sampled_from(["ann", "bob", "eve"]), max_size=40)


def test_the_examples_of_the_docstring() -> None:
    assert shares.surplus(["ann", "eve", "eve", "eve"], 3) == [1]
    assert shares.surplus(["ann", "ann", "eve", "eve"], 3) == [0]


@hypothesis.given(there=SHARES, keep=st.integers(0, 40))
def test_so_many_stay_and_of_each_the_newest(there: list[str], keep: int) -> None:
    gone = set(shares.surplus(there, keep))
    assert len(gone) == max(0, len(there) - keep)
    for who in set(there):
        places = [place for place, one in enumerate(there) if one == who]
        lost = [place in gone for place in places]
        assert lost == sorted(lost, reverse=True), "the oldest go first"


@hypothesis.given(there=SHARES, more=st.integers(0, 100), keep=st.integers(3, 40))
def test_nobody_pushes_out_another_below_an_equal_share(there: list[str], more: int, keep: int) -> None:
    """Whatever one of three does, each of the others keeps a third of the room, or all that they have."""
    flooded = [*there, *["eve"] * more]
    gone = set(shares.surplus(flooded, keep))
    left = Counter(one for place, one in enumerate(flooded) if place not in gone)
    for who in ("ann", "bob"):
        assert left[who] >= min(there.count(who), keep // 3)


def test_a_person_has_a_share_and_all_nodes_together_have_one() -> None:
    """A token for nodes makes any number of them, and whoever knocks comes from any number of addresses."""
    ann, root = (pb.AuditRecord(who=who, role=role, call="Delete") for who, role in (("ann", "editor"), ("r", "admin")))
    nodes = [pb.AuditRecord(who=f"n{number}", role="node", call="Delete") for number in range(3)]
    joins = [pb.AuditRecord(who=f"10.0.0.{number}", call=shares.JOIN) for number in range(3)]
    joins.append(pb.AuditRecord(who="ann", role="editor", call=shares.JOIN))
    assert shares.share(ann) != shares.share(root)
    assert len({shares.share(one) for one in nodes}) == len({shares.share(one) for one in joins}) == 1
    assert len({shares.share(one) for one in (ann, root, *nodes, *joins)}) == 4


def test_what_was_broken_off_is_no_refusal() -> None:
    """Something may have been done by then."""
    assert shares.is_refusal(pb.AuditRecord(refused="may not"))
    assert not shares.is_refusal(pb.AuditRecord())
    assert not shares.is_refusal(pb.AuditRecord(refused="broken off", step=pb.AUDIT_STEP_BROKEN_OFF))

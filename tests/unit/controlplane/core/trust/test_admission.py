"""Who may join with a token, and whose certificate is believed."""

import dataclasses

import pytest

from controlplane.core import plan
from controlplane.core import request_errors as errors
from controlplane.core.trust import admission
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import certificate, token
from trust.core.identity import Role

NOW_MS = 1_800_000_000_000
SEALING = b"s" * 32
ROOT = errands.root("c", "first", SEALING, NOW_MS)
PIN = certificate.read(ROOT.certificate.encode()).key_digest
SAID = token.make(Role.NODE, PIN, b"0123456789abcdef")
ASK = admission.Ask(said=SAID, name="id1", node_name="n1", key_digest="k1", known=None, others=(), asked_at=NOW_MS)


def trust(said: token.Token = SAID, **record: object) -> pb.TrustRecord:
    """A cluster with one token."""
    fields = {"id": "t1", "role": said.role, "digest": said.digest, "unlimited": True, **record}
    kept = pb.TokenRecord(**fields)  # type: ignore[arg-type]
    return pb.TrustRecord(cluster="c", roots=[pb.RootRecord(certificate=ROOT.certificate)], tokens=[kept])


def joined(admitted: admission.Admission, key: str = "k1") -> pb.MemberRecord:
    return admission.with_key(admitted.member, pb.MemberKey(digest=key, expires_at=NOW_MS + 1))


def test_a_node_joins_and_is_known_by_its_id() -> None:
    """Its record tells what people call it, and with which token it came."""
    admitted = admission.admit(trust(), ASK, NOW_MS)
    assert str(admitted.identity) == "node id1"
    assert admitted.identity.cluster == "c"
    assert (admitted.member.name, admitted.member.node_name, admitted.member.token) == ("node:id1", "n1", "t1")


@pytest.mark.parametrize(
    ("kept", "said", "why"),
    [
        ({}, token.make(Role.NODE, "0" * 64, b"0123456789abcdef"), "of another cluster"),
        ({}, token.make(Role.NODE, PIN, b"another secret!!"), "or was never made here"),
        ({}, token.make(Role.ADMIN, PIN, b"0123456789abcdef"), "is for the role node, and says admin"),
        ({"expires_at": NOW_MS}, SAID, "t1 has expired"),
        ({"unlimited": False, "uses_left": 0}, SAID, "t1 is used up"),
    ],
)
def test_a_token_that_does_not_open_the_door_says_why(kept: dict[str, object], said: token.Token, why: str) -> None:
    """Each with a remedy."""
    with pytest.raises(errors.Forbidden, match=why) as refused:
        admission.admit(trust(**kept), dataclasses.replace(ASK, said=said), NOW_MS)
    assert "orchctl cluster token create" in refused.value.hint


def test_a_use_is_counted_once_however_often_the_same_key_asks() -> None:
    """An answer that was lost on its way costs nothing."""
    once = admission.admit(trust(unlimited=False, uses_left=1), ASK, NOW_MS)
    assert once.trust.tokens[0].uses_left == 0
    again = dataclasses.replace(ASK, known=joined(once))
    assert admission.admit(once.trust, again, NOW_MS).trust.tokens[0].uses_left == 0
    other = dataclasses.replace(ASK, name="id2", node_name="n2", key_digest="k2")
    with pytest.raises(errors.Forbidden, match="used up"):
        admission.admit(once.trust, other, NOW_MS)


def person(
    name: str, role: str = "admin", *, expires_at: int = NOW_MS + 1, namespaces: tuple[str, ...] = ()
) -> pb.MemberRecord:
    keys = [pb.MemberKey(digest="k", expires_at=expires_at)]
    return pb.MemberRecord(name=f"person:{name}", role=role, namespaces=namespaces, keys=keys)


@pytest.mark.parametrize(
    "others",
    [
        (),
        (person("bob", "editor"),),
        (person("bob", expires_at=NOW_MS),),
        (person("bob", namespaces=("shop",)),),
        (pb.MemberRecord(name="person:bob", role="admin"),),
    ],
)
def test_the_last_admin_stays(others: tuple[pb.MemberRecord, ...]) -> None:
    """Whoever cannot make tokens does not stand in for one; nor does the last one become less by a token."""
    ann = person("ann")
    with pytest.raises(errors.NotNow, match="person:ann is the last admin") as refused:
        admission.other_admin(ann, [ann, *others], NOW_MS)
    assert "`orchctl cluster token create --role admin --person NAME`" in refused.value.hint
    said = token.make(Role.VIEWER, PIN, b"0123456789abcdef")
    ask = dataclasses.replace(ASK, said=said, node_name="", known=ann, others=[ann, *others])
    with pytest.raises(errors.NotNow, match="person:ann is the last admin"):
        admission.admit(trust(said, person="ann"), ask, NOW_MS)
    carl = person("carl")
    assert admission.other_admin(ann, [ann, *others, carl], NOW_MS) is carl
    ask = dataclasses.replace(ask, others=[ann, *others, carl])
    assert admission.admit(trust(said, person="ann"), ask, NOW_MS).member.role == "viewer"


@pytest.mark.parametrize("gone", [person("ann", "viewer"), person("ann", expires_at=NOW_MS)])
def test_who_lets_nobody_in_is_not_missed(gone: pb.MemberRecord) -> None:
    assert admission.other_admin(gone, [gone], NOW_MS) is None


def test_the_last_admin_comes_anew_as_an_admin() -> None:
    """On another machine, with a token for the same role."""
    said = token.make(Role.ADMIN, PIN, b"0123456789abcdef")
    ann = person("ann")
    ask = dataclasses.replace(ASK, said=said, node_name="", known=ann, others=[ann])
    assert admission.admit(trust(said, person="ann"), ask, NOW_MS).member.role == "admin"


def test_nobody_takes_the_id_or_the_name_of_a_node() -> None:
    """With a valid token and another key one is another machine."""
    known = joined(admission.admit(trust(), ASK, NOW_MS))
    with pytest.raises(errors.Forbidden, match="a node id1 already, with another key"):
        admission.admit(trust(), dataclasses.replace(ASK, known=known, key_digest="k2"), NOW_MS)
    namesake = dataclasses.replace(ASK, name="id2", key_digest="k2", others=[known])
    with pytest.raises(errors.Forbidden, match=r"n1 belongs to another node \(id1\)"):
        admission.admit(trust(), namesake, NOW_MS)


def test_a_node_that_was_off_until_its_certificate_ran_out_comes_anew() -> None:
    """With the same id and name, another key and a token; before that moment it is somebody else."""
    known = joined(admission.admit(trust(), ASK, NOW_MS))
    late = dataclasses.replace(ASK, known=known, others=[known], key_digest="k2")
    with pytest.raises(errors.Forbidden, match="with another key"):
        admission.admit(trust(), late, NOW_MS)
    assert admission.admit(trust(), late, NOW_MS + 1).member.node_name == "n1"


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "-a", "a" * 64, "a\n"])
def test_a_name_that_would_be_no_key_of_the_store_is_refused(name: str) -> None:
    """It stands in a certificate and in a key."""
    with pytest.raises(errors.Invalid, match="is no name for a node"):
        admission.admit(trust(), dataclasses.replace(ASK, name=name), NOW_MS)
    if name:
        with pytest.raises(errors.Invalid, match="is no name for people to call a node"):
            admission.admit(trust(), dataclasses.replace(ASK, node_name=name), NOW_MS)


def test_a_person_is_who_the_token_says_and_has_several_keys() -> None:
    """What a person calls themselves does not matter; the namespaces are the token's."""
    said = token.make(Role.EDITOR, PIN, b"0123456789abcdef")
    kept = trust(said, person="ann", namespaces=["shop"])
    first = admission.admit(kept, dataclasses.replace(ASK, said=said, name="root", node_name=""), NOW_MS)
    assert (first.identity.name, list(first.member.namespaces)) == ("ann", ["shop"])
    second = dataclasses.replace(ASK, said=said, key_digest="k2", node_name="", known=joined(first))
    both = joined(admission.admit(kept, second, NOW_MS), "k2")
    assert [key.digest for key in both.keys] == ["k2", "k1"]


def test_the_oldest_keys_go() -> None:
    """A node has the one that it uses, and the one that it is about to use."""
    member = pb.MemberRecord(role="node")
    for digest in ("a", "b", "b", "c"):
        member = admission.with_key(member, pb.MemberKey(digest=digest))
    assert [key.digest for key in member.keys] == ["c", "b"]


def test_a_member_whose_answers_are_lost_is_never_locked_out() -> None:
    """The key that it asks with stays, whatever was issued before and never arrived."""
    member = pb.MemberRecord(role="node", keys=[pb.MemberKey(digest="held")])
    for lost in ("l1", "l2", "l3"):
        member = admission.with_key(member, pb.MemberKey(digest=lost), "held")
        assert [key.digest for key in member.keys] == [lost, "held"]


def test_what_is_open_goes_on_through_a_renewal_and_ends_with_the_membership() -> None:
    """Also when the member is out and in again before anybody looks."""
    renewed = admission.with_key(MEMBER, pb.MemberKey(digest="k2"))
    again = admission.with_key(renewed, pb.MemberKey(digest="k3"))
    assert admission.still_stands(MEMBER, again)
    anew, bound = plan.copy(MEMBER), plan.copy(MEMBER)
    anew.joined_at += 1
    bound.namespaces.append("b")
    assert not any(admission.still_stands(MEMBER, other) for other in (None, anew, bound))


FACTS = certificate.Facts(
    subject=(("O", "c"), ("OU", "node"), ("CN", "id1")),
    issuer=(),
    serial=1,
    not_before_ms=0,
    not_after_ms=1,
    key_digest="k1",
)
MEMBER = pb.MemberRecord(name="node:id1", role="node", namespaces=["a"], keys=[pb.MemberKey(digest="k1")])


def test_a_certificate_is_believed_while_its_key_is_in_the_record() -> None:
    """It answers the record, with what its holder is bound to."""
    assert admission.believe("c", FACTS, MEMBER) is MEMBER


@pytest.mark.parametrize(
    ("facts", "member", "why"),
    [
        ({}, None, "removed from this cluster, or never joined"),
        ({"key_digest": "k0"}, {}, "replaced by others"),
        ({"subject": (("O", "d"), ("OU", "node"), ("CN", "id1"))}, {}, "of another cluster"),
        ({"subject": (("O", "c"), ("OU", "king"), ("CN", "id1"))}, {}, "none of a member"),
        ({"subject": (("O", "c"), ("O", "c"), ("OU", "node"), ("CN", "id1"))}, {}, "none of a member"),
        ({}, {"role": "controlplane"}, "for another role"),
    ],
)
def test_a_certificate_that_is_worth_nothing_says_why(
    facts: dict[str, object], member: dict[str, str] | None, why: str
) -> None:
    """TLS has verified it; the cluster does not know it, or not any more."""
    record = None if member is None else plan.copy(MEMBER)
    if record is not None and member:
        record.role = member["role"]
    with pytest.raises(errors.Unidentified, match=why) as refused:
        admission.believe("c", dataclasses.replace(FACTS, **facts), record)  # type: ignore[arg-type]
    assert refused.value.hint

"""The exchange of the store's root: stored like that of the cluster's, and with a step more, for etcd's sake.

    one root ──begin──► REISSUING: the new one issues, and the old one has signed it across
        ▲                   │ every instance and every member of etcd has a certificate of the new root
        │               DROPPING: the old root leaves the files; members of etcd are started anew, one at a time
        └───────end─────────┘ every member of etcd was started with the new root alone

Why so: etcd (3.4) reads its certificate at every handshake, and whom it believes only when it starts. A certificate of
the new root comes with the one that leads from there to the old root, so that members that believe the old one alone
let it in; and nobody needs the old one when the first member believes it no more. So each is started anew once, and not
three times.

The rule: whose turn it is follows from the records alone. Nobody holds it, so that nobody can lose it.
"""

from collections.abc import Iterable, Sequence

from controlplane.core import plan
from controlplane.core import request_errors as errors
from controlplane.core.trust import rotation
from protos.orch.v1 import trust_pb2 as pb
from trust.core.identity import Role

REISSUING, DROPPING = pb.ROTATION_PHASE_REISSUING, pb.ROTATION_PHASE_DROPPING


def bundle(trust: pb.TrustRecord) -> str:
    """The roots that instances and members of etcd are to believe to be of the store, as PEM."""
    old = trust.old_store_root.certificate if trust.HasField("old_store_root") else ""
    return trust.store_root.certificate + old


def check_beginning(trust: pb.TrustRecord) -> None:
    """That no exchange is under way. Raises NotNow."""
    if trust.store_rotation:
        hint = "`orchctl cluster rotate-ca --status` tells how far it is"
        raise errors.NotNow("the store's root is being exchanged already", hint=hint)


def begin(trust: pb.TrustRecord, new: pb.RootRecord) -> pb.TrustRecord:
    """The record with another root of the store, which issues from now on. Raises NotNow while another is under way."""
    assert new.cross_certificate, "a new root is signed across by the old one"
    assert trust.HasField("store_root"), "the store of this cluster is its own"
    check_beginning(trust)
    changed = plan.copy(trust)
    changed.old_store_root.CopyFrom(trust.store_root)
    changed.old_store_root.cross_certificate = ""
    changed.store_root.CopyFrom(new)
    changed.store_rotation = REISSUING
    return changed


def advance(trust: pb.TrustRecord, members: Iterable[pb.MemberRecord]) -> rotation.Step:
    """What comes next. An instance that does not come back is waited for until it is taken out.

    Nobody is left behind here: a member of etcd that the others refuse would cost the store its quorum with the next
    one that is lost.
    """
    if not trust.store_rotation:
        return rotation.Step()
    waiting = _not_done(trust, members)
    if waiting:
        return rotation.Step(waiting_for=[_told(one) for one in waiting])
    changed = plan.copy(trust)
    if trust.store_rotation == REISSUING:
        changed.ClearField("old_store_root")
        changed.store_rotation = DROPPING
    else:
        changed.store_root.cross_certificate = ""
        changed.store_rotation = pb.ROTATION_PHASE_UNSPECIFIED
    return rotation.Step(next=changed)


def turn(trust: pb.TrustRecord, members: Iterable[pb.MemberRecord]) -> str:
    """The instance whose member of etcd may be started anew now; empty: none.

    It stays the same until that instance has reported, however often anybody looks, and whoever is killed meanwhile.
    """
    if trust.store_rotation != DROPPING:
        return ""
    return next((one.name for one in _not_done(trust, members)), "")


def ended(trust: pb.TrustRecord) -> pb.TrustRecord:
    """The record as of a store in which nobody has a certificate of the old root: one that is made anew."""
    changed = plan.copy(trust)
    changed.ClearField("old_store_root")
    changed.store_rotation = pb.ROTATION_PHASE_UNSPECIFIED
    if changed.HasField("store_root"):
        changed.store_root.cross_certificate = ""
    return changed


def _not_done(trust: pb.TrustRecord, members: Iterable[pb.MemberRecord]) -> Sequence[pb.MemberRecord]:
    new = rotation.pin(trust.store_root)
    instances = sorted((one for one in members if one.role == Role.CONTROLPLANE), key=lambda one: one.name)
    if trust.store_rotation == REISSUING:
        return [one for one in instances if one.store.issued_by != new]
    return [one for one in instances if one.store.believes != new]


def _told(member: pb.MemberRecord) -> str:
    return f"{member.name}: {member.store.problem}" if member.store.problem else member.name

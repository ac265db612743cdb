"""The exchange of the cluster's root: a machine whose whole state is stored, so that a new leader goes on with it.

    one root ──begin──► REISSUING: both are trusted, the new one issues, and the old one has signed it across
        ▲                   │ everybody has a certificate of the new root, and has said so
        └───────drop────────┘ the old root goes, and with it every token, since each pins it

Why signing across is enough: who trusts the old root alone comes to trust a new certificate through the cross
certificate that comes with it, and who has a new certificate is given both roots. So nobody has to be told first.

Why a record of the certificate is not enough: its answer may be lost, and who then has a certificate of the old root
alone could not even ask again once that is gone.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from controlplane.core import plan
from controlplane.core import request_errors as errors
from protos.orch.v1 import trust_pb2 as pb
from trust.core import certificate

LOOK = "`orchctl cluster rotate-ca --status` tells how far it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Either the record as it is next, and who is left behind by that; or whom the exchange waits for."""

    next: pb.TrustRecord | None = None
    left_behind: Sequence[str] = ()
    waiting_for: Sequence[str] = ()


def pin(root: pb.RootRecord) -> str:
    """The SHA-256 of the root's public key."""
    return certificate.read(root.certificate.encode()).key_digest


def bundle(trust: pb.TrustRecord) -> str:
    """The roots that everybody trusts, as PEM."""
    return "".join(root.certificate for root in trust.roots)


def check_beginning(trust: pb.TrustRecord) -> None:
    """That no exchange is under way. Raises NotNow."""
    if trust.rotation:
        raise errors.NotNow("the root is being exchanged already", hint=LOOK)


def begin(trust: pb.TrustRecord, new: pb.RootRecord) -> pb.TrustRecord:
    """The record with another root, which issues from now on. Raises NotNow while another exchange is under way."""
    assert new.cross_certificate, "a new root is signed across by the old one"
    check_beginning(trust)
    changed = plan.copy(trust)
    del changed.roots[:]
    changed.roots.extend([new, *trust.roots])
    changed.rotation = pb.ROTATION_PHASE_REISSUING
    return changed


def advance(
    trust: pb.TrustRecord, members: Iterable[pb.MemberRecord], now_ms: int, *, left_behind: Collection[str] = ()
) -> Step:
    """What comes next. `left_behind`: members that are not waited for; they have to join anew."""
    if not trust.rotation:
        return Step()
    assert len(trust.roots) == 2, "an exchange has an old root and a new one"
    behind = sorted(one.name for one in members if is_behind(trust, one, now_ms))
    if waiting := [name for name in behind if name not in left_behind]:
        return Step(waiting_for=waiting)
    changed = plan.copy(trust)
    del changed.roots[1:], changed.tokens[:]
    changed.roots[0].cross_certificate = ""
    changed.rotation = pb.ROTATION_PHASE_UNSPECIFIED
    return Step(next=changed, left_behind=behind)


def is_behind(trust: pb.TrustRecord, member: pb.MemberRecord, now_ms: int) -> bool:
    """Whether the newest certificate that it has is of an older root, or is not known to have come.

    One that has none any more is not waited for.
    """
    valid = [key for key in member.keys if key.expires_at > now_ms]
    return bool(valid) and (valid[0].root != pin(trust.roots[0]) or valid[0].unconfirmed)

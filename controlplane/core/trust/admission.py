"""Who may join with a token, what is kept of it, and whose certificate is believed.

Three rules. A join is decided as a whole: a refusal uses nothing up. A second try with the same key is the same join,
so that one whose answer was lost succeeds. And a certificate is believed as long as its key stands in its member's
record: who is taken out of there is out at once, however long the certificate says that it is valid.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.core import plan
from controlplane.core import request_errors as errors
from protos.orch.v1 import trust_pb2 as pb
from trust.core import certificate, identity, token
from trust.core.identity import PEOPLE, Identity, Role

MAX_KEYS = {Role.NODE: 2, Role.CONTROLPLANE: 2}
MAX_PERSON_KEYS = 16
"""A person has a key on each machine that they work at; the oldest goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Who wants to join. `known`: the record of the member of that name, if there is one. `asked_at`: when, in ms; the
    certificate is made after that, and whoever looks takes one from before the joining for that of somebody else.
    """

    said: token.Token
    name: str
    node_name: str
    key_digest: str
    known: pb.MemberRecord | None
    others: Iterable[pb.MemberRecord]
    asked_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What is stored of a join: the record of the member, and the cluster's with one use less."""

    identity: Identity
    member: pb.MemberRecord
    trust: pb.TrustRecord


def token_of(trust: pb.TrustRecord, said: token.Token, now_ms: int) -> pb.TokenRecord:
    """The record of a token that still opens the door. Raises Forbidden, each time with what is wrong with it."""
    pins = [certificate.read(root.certificate.encode()).key_digest for root in trust.roots]
    if not any(token.fits(said.pin, pin) for pin in pins):
        raise errors.Forbidden(
            "the token is of another cluster, or of a root that was exchanged since",
            hint="make one in this cluster: `orchctl cluster token create`",
        )
    found = next((one for one in trust.tokens if token.is_secret(said, one.digest)), None)
    if found is None:
        raise errors.Forbidden(
            "the token was revoked, has been over for more than a week, or was never made here",
            hint=_another(said.role),
        )
    if found.role != said.role:
        raise errors.Forbidden(
            f"the token is for the role {found.role}, and says {said.role}", hint=_another(said.role)
        )
    if found.expires_at and found.expires_at <= now_ms:
        raise errors.Forbidden(f"the token {found.id} has expired", hint=_another(said.role))
    return found


def admit(trust: pb.TrustRecord, ask: Ask, now_ms: int) -> Admission:
    """Lets somebody in. Raises Forbidden, Invalid or NotNow."""
    record = token_of(trust, ask.said, now_ms)
    role = ask.said.role
    name = record.person if role in PEOPLE else ask.name
    if not identity.NAME.fullmatch(name):
        raise errors.Invalid(f"{name!r:.70} is no name for a {role}", hint=f"a name has {identity.NAME_HINT}")
    if ask.node_name and not identity.NAME.fullmatch(ask.node_name):
        raise errors.Invalid(
            f"{ask.node_name!r:.70} is no name for people to call a node", hint=f"a name has {identity.NAME_HINT}"
        )
    if role in PEOPLE:
        _check_admin_stays(record, ask, now_ms)
    again = ask.known is not None and any(key.digest == ask.key_digest for key in ask.known.keys)
    if not again:
        _check_new(record, ask, role, now_ms)
    changed = trust if again or record.unlimited else _used(trust, record, now_ms)
    who = Identity(cluster=trust.cluster, role=role, name=name)
    return Admission(identity=who, member=_member(who, record, ask), trust=changed)


def _check_new(record: pb.TokenRecord, ask: Ask, role: Role, now_ms: int) -> None:
    """That the token has a use left, and nobody else the names. Who let every certificate run out may come anew."""
    if not record.unlimited and not record.uses_left:
        raise errors.Forbidden(f"the token {record.id} is used up", hint=_another(role))
    if role in PEOPLE:
        return
    if ask.known is not None and any(key.expires_at > now_ms for key in ask.known.keys):
        text = f"there is a {role} {ask.name} already, with another key"
        raise errors.Forbidden(text, hint=f"`orchctl cluster member revoke {ask.known.name}` lets it join anew")
    others = (one for one in ask.others if ask.known is None or one.name != ask.known.name)
    taken = next((one for one in others if ask.node_name and one.node_name == ask.node_name), None)
    if taken is not None:
        text = f"the name {ask.node_name} belongs to another node ({taken.name.partition(':')[2]})"
        hint = f"join with another --name, or remove that one with `orchctl delete node {ask.node_name}`"
        raise errors.Forbidden(text, hint=hint)


def other_admin(member: pb.MemberRecord, members: Iterable[pb.MemberRecord], now_ms: int) -> pb.MemberRecord | None:
    """Who can let others in when this member cannot any more. Raises NotNow when nobody could.

    None: this member is none who can, and is not missed.
    """
    if not _lets_in(member, now_ms):
        return None
    found = next((one for one in members if one.name != member.name and _lets_in(one, now_ms)), None)
    if found is None:
        text = f"{member.name} is the last admin: nobody could let anybody in"
        hint = (
            "let another one in: `orchctl cluster token create --role admin --person NAME`, and `orchctl login` there"
        )
        raise errors.NotNow(text, hint=hint)
    return found


def _lets_in(member: pb.MemberRecord, now_ms: int) -> bool:
    """Whether it is an admin of the whole cluster who has a certificate to make tokens with."""
    bound = bool(member.namespaces)
    return member.role == Role.ADMIN and not bound and any(key.expires_at > now_ms for key in member.keys)


def _check_admin_stays(record: pb.TokenRecord, ask: Ask, now_ms: int) -> None:
    """That the last admin does not become less by a token. Raises NotNow."""
    if ask.known is not None and (record.role != Role.ADMIN or record.namespaces):
        other_admin(ask.known, ask.others, now_ms)


def _used(trust: pb.TrustRecord, record: pb.TokenRecord, now_ms: int) -> pb.TrustRecord:
    changed = plan.copy(trust)
    for one in changed.tokens:
        if one.id == record.id:
            one.uses_left -= 1
            one.used_up_at = 0 if one.uses_left else now_ms
    return changed


def _member(who: Identity, record: pb.TokenRecord, ask: Ask) -> pb.MemberRecord:
    member = plan.copy(ask.known) if ask.known is not None else pb.MemberRecord(name=who.member, joined_at=ask.asked_at)
    member.role, member.token = who.role, record.id
    if ask.node_name:
        member.node_name = ask.node_name
    del member.namespaces[:]
    member.namespaces.extend(record.namespaces)
    return member


def with_key(member: pb.MemberRecord, key: pb.MemberKey, used: str = "") -> pb.MemberRecord:
    """The record with a key in front, and after it the one that was `used` to ask for it. The oldest ones go.

    Whoever asks holds the key that they ask with: however many answers are lost, it is one of those that are kept.
    """
    changed = plan.copy(member)
    most = MAX_KEYS.get(Role(member.role), MAX_PERSON_KEYS)
    others = sorted((one for one in member.keys if one.digest != key.digest), key=lambda one: one.digest != used)
    del changed.keys[:]
    changed.keys.extend([key, *others][:most])
    return changed


def confirmed(member: pb.MemberRecord, digest: str) -> pb.MemberRecord:
    """The record once the certificate for a key is known to have come."""
    changed = plan.copy(member)
    for key in changed.keys:
        key.unconfirmed = key.unconfirmed and key.digest != digest
    return changed


def still_stands(before: pb.MemberRecord, after: pb.MemberRecord | None) -> bool:
    """Whether what a member began with the one record goes on with the other. A key that was renewed is no matter."""
    if after is None:
        return False
    rights = [(one.joined_at, one.role, list(one.namespaces)) for one in (before, after)]
    return rights[0] == rights[1]


def believe(cluster: str, facts: certificate.Facts, member: pb.MemberRecord | None) -> pb.MemberRecord:
    """The record of the holder of a certificate. Raises Unidentified.

    TLS has verified the certificate; here it is compared with what the cluster keeps.
    """
    try:
        who = facts.identity
    except identity.Malformed as error:
        raise errors.Unidentified(f"the certificate is none of a member: {error}", hint="join the cluster") from error
    if who.cluster != cluster:
        raise errors.Unidentified(f"the certificate is of another cluster ({who.cluster:.40})", hint=_anew(who.role))
    if member is None:
        raise errors.Unidentified(f"{who} was removed from this cluster, or never joined it", hint=_anew(who.role))
    if member.role != who.role:
        text = f"{who} has a certificate for another role than they have now, which is {member.role}"
        raise errors.Unidentified(text, hint=_anew(who.role))
    if all(one.digest != facts.key_digest for one in member.keys):
        raise errors.Unidentified(f"the certificate of {who} was replaced by others since", hint=_anew(who.role))
    return member


def _another(role: Role) -> str:
    return f"get another: `orchctl cluster token create --role {role}`"


def _anew(role: Role) -> str:
    if role in PEOPLE:
        return "get a token from an admin of the cluster, and `orchctl login` with it"
    verb = "orchctl node join" if role is Role.NODE else "orchctl cluster join"
    return f"`{verb}` with a new token lets it in again"

"""What the audit log tells of the door: who has joined, and who was not let in.

Two rules. Of a token it has the beginning of its secret's digest alone, by which `orchctl cluster token ls` lists it.
And all who are refused share one pace, since nobody knows who they are.
"""

from controlplane.core.trust.deeds import MAX_NAME
from controlplane.core.trust.shares import JOIN
from controlplane.trust.audit import Audit
from protos.orch.v1 import trust_pb2 as pb
from trust.core import certificate, token
from trust.core.identity import PEOPLE, Malformed

THE_DOOR = "the door"
"""Whose pace the refusals have: no member is called that."""


class DoorBook:
    """Nothing is held up by it, as by the audit log itself."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def joined(self, request: pb.JoinRequest, answer: pb.JoinResponse) -> None:
        """Somebody was let in, and has this certificate now."""
        who = certificate.read(answer.certificate.encode()).identity
        self._audit.tell(pb.AuditRecord(who=who.name, role=who.role, call=JOIN, objects=_about(request)))

    def refused(self, request: pb.JoinRequest, address: str, why: str) -> None:
        """Somebody was not. Nobody knows who: `address` is where they came from."""
        role = said.role if (said := _said(request)) is not None else ""
        record = pb.AuditRecord(who=address, role=role, call=JOIN, objects=_about(request), refused=why)
        self._audit.refused(THE_DOOR, record)


def _about(request: pb.JoinRequest) -> list[str]:
    """`node n1` and `token 5f0c2a11`, as far as they are said. Who a token for a person is for, the token tells."""
    said, name = _said(request), (request.node_name or request.name)[:MAX_NAME]
    if said is None:
        return [name] if name else []
    return [*([f"{said.role} {name}"] if said.role not in PEOPLE else []), f"token {said.digest[:8]}"]


def _said(request: pb.JoinRequest) -> token.Token | None:
    try:
        return token.parse(request.token)
    except Malformed:
        return None

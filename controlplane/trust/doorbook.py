"""What the audit log tells of the door: who has joined, and who was not let in.

Two rules. Of a token it has the beginning of its secret's digest alone, by which `orchctl cluster token ls` lists it.
And refusals are told at a pace: anybody may knock, and must not push out of the log what members have done.
"""

from collections.abc import Callable

from controlplane.core.trust.pace import Pace
from controlplane.trust.audit import MAX_NAME, MAX_REFUSAL, Audit
from protos.orch.v1 import trust_pb2 as pb
from trust.core import certificate, token
from trust.core.identity import PEOPLE, Malformed

CALL = "Join"
BURST, PER_SECOND = 20, 1 / 60
"""A day of refusals without a break takes 1,460 of the 5,000 entries that the cluster keeps."""


class DoorBook:
    """Nothing is held up by it, as by the audit log itself."""

    def __init__(self, audit: Audit, now_ms: Callable[[], int]) -> None:
        self._audit = audit
        self._now_ms = now_ms
        self._pace = Pace(burst=BURST, per_second=PER_SECOND)
        self._untold = 0

    def joined(self, request: pb.JoinRequest, answer: pb.JoinResponse) -> None:
        """Somebody was let in, and has this certificate now."""
        who = certificate.read(answer.certificate.encode()).identity
        self._audit.tell(pb.AuditRecord(who=who.name, role=who.role, call=CALL, objects=_about(request)))

    def refused(self, request: pb.JoinRequest, address: str, why: str) -> None:
        """Somebody was not. Nobody knows who: `address` is where they came from."""
        if not self._pace.take(self._now_ms()):
            self._untold += 1
            return
        more = f"; and {self._untold} more since the refusal before" if self._untold else ""
        self._untold = 0
        role = said.role if (said := _said(request)) is not None else ""
        told = f"{why[: MAX_REFUSAL - len(more)]}{more}"
        self._audit.tell(pb.AuditRecord(who=address, role=role, call=CALL, objects=_about(request), refused=told))


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

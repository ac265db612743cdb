"""What the audit log tells of the door."""

from pathlib import Path

from controlplane.core.trust import deeds, refusals
from controlplane.trust import audit, doorbook
from protos.orch.v1 import trust_pb2 as pb
from trust.core import token
from trust.core.identity import Role

TOKEN = token.make(Role.NODE, "0" * 32, bytes(16))


def test_refusals_are_told_at_a_pace_with_how_many_there_were(tmp_path: Path) -> None:
    """Who knocks a thousand times pushes nothing else out, and does not hide that it was a thousand."""
    told: list[pb.AuditRecord] = []
    now_ms = 1_000_000
    book = doorbook.DoorBook(audit.Audit(tmp_path / "audit.log", lambda: now_ms, told.append))
    request = pb.JoinRequest(token=str(TOKEN), name="n1", node_name="web")
    for _ in range(1000):
        book.refused(request, "10.0.0.9", "the token 5f0c2a11 is used up")
    assert len(told) == refusals.BURST
    now_ms += 60_000
    book.refused(request, "10.0.0.9", "the token 5f0c2a11 is used up")
    last = told[-1]
    assert (len(told), last.who, last.role, last.call) == (refusals.BURST + 1, "10.0.0.9", "node", "Join")
    assert last.objects == ["node web", f"token {TOKEN.digest[:8]}"]
    assert last.refused == "the token 5f0c2a11 is used up; and 980 more since the refusal before"


def test_what_is_no_token_is_told_without_it(tmp_path: Path) -> None:
    """It may be one that was copied badly. However long it all is, the line is short."""
    told: list[pb.AuditRecord] = []
    book = doorbook.DoorBook(audit.Audit(tmp_path / "audit.log", lambda: 1, told.append))
    damaged = str(TOKEN)[:-1]
    book.refused(pb.JoinRequest(token=damaged, name="n" * 60_000), "10.0.0.9", "w" * 60_000)
    assert (told[0].role, list(told[0].objects)) == ("", ["n" * deeds.MAX_NAME])
    assert len(told[0].refused) == refusals.MAX_REFUSAL
    assert TOKEN.secret[:-1] not in str(told[0])

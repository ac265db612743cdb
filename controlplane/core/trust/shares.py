"""Whose records the audit log keeps when there are too many: what somebody does pushes out their own alone.

The rule: the newest of everybody stay. Whoever has the most loses the oldest of them first, so that somebody who did
little long ago is still found after others have done a great deal.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from protos.orch.v1 import trust_pb2 as pb
from trust.core.identity import PEOPLE

JOIN = "Join"
"""What the door calls a join."""


def is_refusal(record: pb.AuditRecord) -> bool:
    """Whether nothing was done."""
    return bool(record.refused) and record.step == pb.AUDIT_STEP_UNSPECIFIED


def share(record: pb.AuditRecord) -> str:
    """With whose records it is counted: a person's own. All nodes have one share, and so has the door.

    Else whoever has a token for nodes would have as many shares as they can have names.
    """
    if record.call == JOIN:
        return JOIN
    return f"person {record.who}" if record.role in PEOPLE else record.role


def surplus(shares: Iterable[str], keep: int) -> Sequence[int]:
    """The places of those that go so that `keep` stay. `shares`: of each record, the oldest first.

    Example: ann, eve, eve, eve with 3 → the second goes. Of ann, ann, eve, eve with 3 it is the first.
    """
    counted: Counter[str] = Counter()
    ranked = []
    for place, one in reversed(list(enumerate(shares))):
        counted[one] += 1
        ranked.append((counted[one], -place))  # the newest of each come first, and of equals the newer
    return sorted(-negative for _, negative in sorted(ranked)[keep:])

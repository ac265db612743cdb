"""Tokens that are over: expired, or used up; and when they are forgotten.

The rule: whoever comes too late is told for a while what has become of their token, and not that it was never there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.core import plan
from protos.orch.v1 import trust_pb2 as pb

KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long one that is over is kept. Example: of a token that expires on a Monday at noon, the door says until the next
Monday at noon that it has expired, and then that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The record as it is next, without those tokens that are `forgotten`; None: it stays. `wake_at`: when to look
    again; None: when it has changed.
    """

    next: pb.TrustRecord | None = None
    forgotten: Sequence[str] = ()
    wake_at: int | None = None


def ended_at(token: pb.TokenRecord, now_ms: int) -> int | None:
    """When a token was over, or will be, as far as it is known; None: nobody can say."""
    moments = [token.expires_at] if token.expires_at else []
    if _is_used_up(token):
        moments.append(token.used_up_at or now_ms)
    return min(moments, default=None)


def forget(trust: pb.TrustRecord, now_ms: int) -> Step:
    """Without the tokens that have been over for long. Those of a control plane that did not note when it used them up
    are over from now on.
    """
    changed = plan.copy(trust)
    for one in changed.tokens:
        if _is_used_up(one) and not one.used_up_at:
            one.used_up_at = now_ms
    ends = {one.id: end for one in changed.tokens if (end := ended_at(one, now_ms)) is not None}
    forgotten = tuple(one for one, end in ends.items() if end + KEPT_MS <= now_ms)
    _take_out(changed, forgotten)
    return Step(
        next=changed if changed != trust else None,
        forgotten=forgotten,
        wake_at=min((end + KEPT_MS for one, end in ends.items() if one not in forgotten), default=None),
    )


def make_room(trust: pb.TrustRecord, most: int, now_ms: int) -> None:
    """Takes those that are over out of a record that is being changed, the longest over first, until there are fewer
    than so many tokens, or none is left that is over.
    """
    ends = {one.id: end for one in trust.tokens if (end := ended_at(one, now_ms)) is not None and end <= now_ms}
    too_many = max(0, len(trust.tokens) - most + 1)
    _take_out(trust, sorted(ends, key=lambda one: ends[one])[:too_many])


def _is_used_up(token: pb.TokenRecord) -> bool:
    return not token.unlimited and not token.uses_left


def _take_out(trust: pb.TrustRecord, ids: Sequence[str]) -> None:
    kept = [one for one in trust.tokens if one.id not in ids]
    del trust.tokens[:]
    trust.tokens.extend(kept)

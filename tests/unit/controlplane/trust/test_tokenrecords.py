"""What tokens are asked for: taken to the millisecond, or refused in words."""

import pytest

from controlplane.core import request_errors as errors
from controlplane.trust import tokenrecords
from protos.orch.v1 import trust_pb2 as pb
from trust.core.identity import Role

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize("lifetime", [-(2**63), -1, tokenrecords.LONGEST_MS + 1, 2**63 - 1])
def test_no_token_is_good_for_longer_than_can_be_told(lifetime: int) -> None:
    """Until when it is good has to be a moment that can be kept."""
    with pytest.raises(errors.Invalid, match="a token is not good for so long"):
        tokenrecords.role(pb.CreateTokenRequest(role="node", lifetime=lifetime))


@pytest.mark.parametrize(
    ("lifetime", "expires_at"),
    [(0, 0), (1, NOW_MS + 1), (tokenrecords.LONGEST_MS, NOW_MS + tokenrecords.LONGEST_MS)],
)
def test_a_token_ends_when_it_was_asked_to(lifetime: int, expires_at: int) -> None:
    """Zero is never."""
    request = pb.CreateTokenRequest(role="node", lifetime=lifetime)
    role = tokenrecords.role(request)
    assert role is Role.NODE
    _, record = tokenrecords.new(role, "pin", request, actor="admin:root", now_ms=NOW_MS)
    assert record.expires_at == expires_at

"""What is kept of the tokens that machines and people join with.

The rule: their text is given out once and kept nowhere; a record has the digest that it is recognised by, and nobody is
shown that.
"""

import secrets

from controlplane.core import plan
from controlplane.core import request_errors as errors
from protos import units
from protos.orch.v1 import trust_pb2 as pb
from trust.core import identity, token
from trust.core.identity import PEOPLE, Malformed, Role

LONGEST_MS = 87_600 * 3_600_000
"""As long as the `ttl` of a service may be: ten years."""


def new(
    role: Role, pin: str, request: pb.CreateTokenRequest, *, actor: str, now_ms: int
) -> tuple[token.Token, pb.TokenRecord]:
    """A token, and what is kept of it."""
    made = token.make(role, pin, secrets.token_bytes(token.SECRET_BYTES))
    return made, pb.TokenRecord(
        id=made.digest[:8],
        role=role,
        digest=made.digest,
        expires_at=now_ms + request.lifetime if request.lifetime else 0,
        uses_left=request.uses,
        unlimited=not request.uses,
        person=request.person,
        namespaces=request.namespaces,
        created_at=now_ms,
        created_by=actor,
    )


def role(request: pb.CreateTokenRequest) -> Role:
    """The role that a token is asked for. Raises Invalid."""
    try:
        found = identity.role(request.role)
    except Malformed as error:
        raise errors.Invalid(str(error)) from error
    if (found in PEOPLE) != bool(request.person):
        raise errors.Invalid(
            f"a token for the role {found} {'needs' if found in PEOPLE else 'does not take'} a person's name",
            hint="--person NAME belongs to the roles admin, editor and viewer",
        )
    if request.person and not identity.NAME.fullmatch(request.person):
        raise errors.Invalid(f"{request.person!r:.70} is no name for a person", hint=f"it has {identity.NAME_HINT}")
    if not 0 <= request.lifetime <= LONGEST_MS:
        longest = units.format_duration(LONGEST_MS)
        raise errors.Invalid(
            "a token is not good for so long", hint=f"for up to {longest}, or with --expires 0s until it is revoked"
        )
    return found


def without(trust: pb.TrustRecord, token_id: str) -> None:
    """Takes one out of a record that is being changed. Raises Unknown."""
    kept = [one for one in trust.tokens if one.id != token_id]
    if len(kept) == len(trust.tokens):
        raise errors.Unknown(f"there is no token {token_id!r:.40}", hint="`orchctl cluster token ls` lists them")
    del trust.tokens[:]
    trust.tokens.extend(kept)


def shown(record: pb.TokenRecord) -> pb.TokenRecord:
    """As anybody may see it."""
    made = plan.copy(record)
    made.digest = ""
    return made

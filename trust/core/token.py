"""Join tokens: what a machine or a person shows once to get a certificate.

    orch-1.node.5f0c…(32).q2x4…(26)
    │      │    │         └ the secret, 128 bits in base32; the cluster keeps its SHA-256 alone
    │      │    └ 128 bits of the SHA-256 of the root's public key: no other root is believed
    │      └ the role that it gives
    └ the version of this format

The rule: a token is checked completely, and each thing that can be wrong with it has one sentence and its remedy.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from trust.core.identity import Malformed, Role, role

VERSION = "orch-1"
PIN_DIGITS = 32
SECRET_BYTES = 16
_SECRET = re.compile(r"[a-z2-7]{26}", re.ASCII)
_PIN = re.compile(rf"[0-9a-f]{{{PIN_DIGITS}}}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, read. Its text is a secret: `repr` leaves the secret out."""

    role: Role
    pin: str
    secret: str

    def __str__(self) -> str:
        return f"{VERSION}.{self.role}.{self.pin}.{self.secret}"

    def __repr__(self) -> str:
        return f"Token({VERSION}.{self.role}.{self.pin}.…)"

    @property
    def digest(self) -> str:
        """What the cluster keeps of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def make(to: Role, pin: str, chance: bytes) -> Token:
    """A new token. `chance`: 16 bytes that nobody can guess."""
    assert len(chance) == SECRET_BYTES, "a secret has 128 bits"
    secret = base64.b32encode(chance).decode().rstrip("=").lower()
    return Token(role=to, pin=pin[:PIN_DIGITS], secret=secret)


def parse(text: str) -> Token:
    """Reads a token. Raises Malformed, which never repeats the secret."""
    parts = text.strip().split(".")
    if parts[0] != VERSION:
        if re.fullmatch(r"orch-[0-9]+", parts[0]):
            raise Malformed(f"the token is of version {parts[0]!r:.20}, and this program reads {VERSION}; update it")
        raise Malformed(f"not a join token: it has to begin with {VERSION}; `orchctl cluster token create` makes one")
    if len(parts) != 4 or not _PIN.fullmatch(parts[2]) or not _SECRET.fullmatch(parts[3]):
        raise Malformed("the join token is damaged; copy all of it, from `orch-1.` to its last letter")
    return Token(role=role(parts[1]), pin=parts[2], secret=parts[3])


def is_secret(said: Token, kept_digest: str) -> bool:
    """Whether it is the token that the digest was kept of; takes as long for a wrong one."""
    return hmac.compare_digest(said.digest, kept_digest)


def fits(pin: str, public_key_digest: str) -> bool:
    """Whether a root with this SHA-256 of its public key is the one that a token pins."""
    return len(pin) == PIN_DIGITS and hmac.compare_digest(pin, public_key_digest[:PIN_DIGITS])

"""Who may read how this node is: its metrics and its health. The control plane decides, as it does about everybody.

A yes is kept as `agent.letin` says: people look when the control plane is away, and their certificate is verified by
TLS all the same, and expires.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.letin import LetIn
from agent.members import Members

MAX_KNOWN = 64


class Readers:
    """`ask` tells why the holder of a certificate, as PEM, may not read; empty: they may. It raises Temporary."""

    def __init__(self, ask: Callable[[str], Awaitable[str]], members: Members, now_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._members = members
        self._let_in = LetIn(MAX_KNOWN, now_ms)

    async def refusal(self, pem: str) -> str:
        """Why not; empty: they may. TLS has verified the certificate."""
        digest = hashlib.sha256(pem.encode()).hexdigest()
        return await self._let_in.refusal(digest, lambda: self._ask(pem), "you may")

    async def health_refusal(self, said: Mapping[str, Iterable[bytes]]) -> str:
        """The same for the node's health, which other nodes and control planes may ask for, too."""
        refusal = self._members.refusal(said)
        if not refusal:
            return ""
        shown = next(iter(said.get("x509_pem_cert", ())), b"")
        return await self.refusal(shown.decode()) if shown else refusal

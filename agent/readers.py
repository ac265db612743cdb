"""Who may read how this node is: its metrics and its health. The control plane decides, as it does about everybody.

Two rules. Who is put out reads nothing more within KEPT_MS. And whoever was let in last is let in while the control
plane is away, since that is when people look: their certificate is verified by TLS all the same, and expires.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.errors import Temporary
from agent.members import Members

KEPT_MS = 10_000
MAX_KNOWN = 64


class Readers:
    """`ask` tells why the holder of a certificate, as PEM, may not read; empty: they may. It raises Temporary."""

    def __init__(self, ask: Callable[[str], Awaitable[str]], members: Members, now_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._members = members
        self._now_ms = now_ms
        self._let_in: OrderedDict[str, int] = OrderedDict()
        """When it was said last that they may, by the digest of their certificate."""

    async def refusal(self, pem: str) -> str:
        """Why not; empty: they may. TLS has verified the certificate."""
        digest = hashlib.sha256(pem.encode()).hexdigest()
        since = self._let_in.get(digest)
        if since is not None and 0 <= self._now_ms() - since < KEPT_MS:
            return ""
        try:
            refusal = await self._ask(pem)
        except Temporary as error:
            return "" if since is not None else f"nobody can say now whether you may: {error.message}"
        self._let_in.pop(digest, None)
        if not refusal:
            self._let_in[digest] = self._now_ms()
            if len(self._let_in) > MAX_KNOWN:
                self._let_in.popitem(last=False)
        return refusal

    async def health_refusal(self, said: Mapping[str, Iterable[bytes]]) -> str:
        """The same for the node's health, which other nodes and control planes may ask for, too."""
        refusal = self._members.refusal(said)
        if not refusal:
            return ""
        shown = next(iter(said.get("x509_pem_cert", ())), b"")
        return await self.refusal(shown.decode()) if shown else refusal

"""Which blobs of images another node may have from this one: those that its own tasks need, as the control plane says.

The rule: a node that has no task of an image (any more) gets nothing of it, whoever told it the digest. A yes is kept
as `agent.letin` says.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.letin import LetIn
from agent.members import Members
from trust import credentials
from trust.core.identity import Role

MAX_KNOWN = 10_000


class Fetchers:
    """`ask` tells why the node of an id may not have a blob; empty: it may. It raises Temporary."""

    def __init__(self, ask: Callable[[str, str], Awaitable[str]], members: Members, now_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._members = members
        self._let_in = LetIn(MAX_KNOWN, now_ms)

    def stranger(self, said: Mapping[str, Iterable[bytes]]) -> str:
        """Why whoever calls gets nothing at all, of what gRPC says of the connection; empty: they are a member."""
        return self._members.refusal(said)

    async def refusal(self, said: Mapping[str, Iterable[bytes]], digest: str) -> str:
        """Why a member does not get a blob; empty: it does. Control planes have all of them."""
        identity = credentials.caller(said).identity
        if identity.role is not Role.NODE:
            return ""
        name = identity.name
        return await self._let_in.refusal((name, digest), lambda: self._ask(name, digest), f"{identity} may have it")

"""Which blobs of images another node may have from this one: those that its own tasks need, as the control plane says.

Two rules. A node that has no task of an image (any more) gets nothing of it after KEPT_MS, whoever told it the digest.
And what was said last holds while the control plane is away: nobody who was let in is cut off by that.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from agent.errors import Temporary
from agent.members import Members
from trust import credentials
from trust.core.identity import Role

KEPT_MS = 10_000
MAX_KNOWN = 10_000


class Fetchers:
    """`ask` tells why the node of an id may not have a blob; empty: it may. It raises Temporary."""

    def __init__(self, ask: Callable[[str, str], Awaitable[str]], members: Members, now_ms: Callable[[], int]) -> None:
        self._ask = ask
        self._members = members
        self._now_ms = now_ms
        self._let_in: OrderedDict[tuple[str, str], int] = OrderedDict()
        """When it was said last that a node may have a blob."""

    def stranger(self, said: Mapping[str, Iterable[bytes]]) -> str:
        """Why whoever calls gets nothing at all, of what gRPC says of the connection; empty: they are a member."""
        return self._members.refusal(said)

    async def refusal(self, said: Mapping[str, Iterable[bytes]], digest: str) -> str:
        """Why a member does not get a blob; empty: it does. Control planes have all of them."""
        identity = credentials.caller(said).identity
        if identity.role is not Role.NODE:
            return ""
        key = identity.name, digest
        since = self._let_in.get(key)
        if since is not None and 0 <= self._now_ms() - since < KEPT_MS:
            return ""
        try:
            refusal = await self._ask(*key)
        except Temporary as error:
            return "" if since is not None else f"nobody can say now whether {identity} may have it: {error.message}"
        self._let_in.pop(key, None)
        if not refusal:
            self._let_in[key] = self._now_ms()
            if len(self._let_in) > MAX_KNOWN:
                self._let_in.popitem(last=False)
        return refusal

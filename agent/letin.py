"""Who was let in, as the control plane has said: a yes is kept for a while, and for longer while nobody answers.

Two rules. Who may not any more is told so within KEPT_MS. And whoever was let in last is let in while the control plane
is away.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable

from agent.errors import Temporary

KEPT_MS = 10_000


class LetIn:
    """`most`: so many are remembered, those that were let in last."""

    def __init__(self, most: int, now_ms: Callable[[], int]) -> None:
        self._most = most
        self._now_ms = now_ms
        self._since: OrderedDict[Hashable, int] = OrderedDict()
        """When it was said last that they may."""

    def __len__(self) -> int:
        return len(self._since)

    async def refusal(self, key: Hashable, ask: Callable[[], Awaitable[str]], question: str) -> str:
        """Why not; empty: they may. `ask` asks the control plane, and raises Temporary; `question`: what is asked."""
        since = self._since.get(key)
        if since is not None and 0 <= self._now_ms() - since < KEPT_MS:
            return ""
        try:
            refusal = await ask()
        except Temporary as error:
            return "" if since is not None else f"nobody can say now whether {question}: {error.message}"
        self._since.pop(key, None)
        if not refusal:
            self._since[key] = self._now_ms()
            if len(self._since) > self._most:
                self._since.popitem(last=False)
        return refusal

"""Where a blob is fetched from next: what the leader says, without those that failed this node lately.

Two rules. Whoever fails costs this node a wait once, and not once for each blob: for a while it is asked for nothing.
And nobody is asked twice in a row without a pause: an answer that leads nowhere may have come at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable

from agent.core import sharing
from agent.errors import Temporary
from agent.ports import Source

BANNED_S = 600.0
"""Who has sent other bytes than the digest says."""
FAILED_S = 60.0
"""Who could not be reached, or was silent or slow."""
BUSY_S = 3.0
"""Who gives to as many as it is willing to."""
LONGEST_WAIT_S = 60.0
"""So long one waits for somebody who is free; then the task says what it waits for, and asks again."""
PAUSE_S = 1.0
"""Between two questions about one blob, when the first has led nowhere."""
CONTROL_PLANE = ""
"""Stands for it among the addresses of nodes."""


class Places:
    """One for all downloads of a node."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left_out: dict[str, float] = {}
        """Until when, in the order in which they failed."""

    def leave_out(self, addresses: Iterable[str], for_s: float) -> None:
        """These nodes are asked for no blob for a while."""
        for address in addresses:
            until = max(self._now() + for_s, self._left_out.pop(address, 0))
            self._left_out[address] = until

    async def of(self, digest: str, size_bytes: int | None, without: Collection[str]) -> AsyncGenerator[str, None]:
        """One address after another, for as long as somebody wants more; `without` may grow meanwhile.

        Raises Temporary when nobody was free for long.
        """
        while not sharing.is_shared(size_bytes):
            yield CONTROL_PLANE
        waiting_since = self._now()
        while True:
            asked_at, led_somewhere = self._now(), False
            # The leader reads the last ones when there are many; after a few it names itself.
            found = await self._source.find(digest, [*without, *self._left_out_now()])
            for address in (*found.addresses, *([CONTROL_PLANE] if found.here else [])):
                if address in without or address in self._left_out_now():
                    continue
                began, led_somewhere = self._now(), True
                yield address
                if self._now() - began > PAUSE_S:
                    waiting_since = self._now()  # something has come, or it was waited for
            if self._now() - waiting_since > LONGEST_WAIT_S:
                raise Temporary(f"nobody who has blob {digest} is free to send it", reason="ImageNotReady")
            if not led_somewhere:
                await asyncio.sleep(asked_at + PAUSE_S - self._now())

    def _left_out_now(self) -> Collection[str]:
        self._left_out = {address: until for address, until in self._left_out.items() if until > self._now()}
        return self._left_out.keys()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

"""A bound on bytes a second that many transfers share.

Worked example: with 10 MiB/s, four transfers that move 1 MiB each at one moment wait 0.1, 0.2, 0.3 and 0.4 s; together
they have moved 4 MiB in 0.4 s. Time that nobody used is not saved up.
"""

from __future__ import annotations

import asyncio
import time


class Pace:
    """`rate` in bytes a second; None is without a bound."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free_at_s = 0.0

    async def spend(self, size_bytes: int) -> None:
        """Returns when so many bytes may have moved."""
        if self._rate is None:
            return
        self._free_at_s = max(self._free_at_s, time.monotonic()) + size_bytes / self._rate
        await asyncio.sleep(self._free_at_s - time.monotonic())

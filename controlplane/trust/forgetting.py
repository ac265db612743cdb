"""Forgets tokens that have been over for long, while this instance leads.

Two rules. The leader alone does it, and every write stands behind its fence: whoever leads no more has written
nothing. And everything is looked at anew each time; what is known here may be old, and the store refuses what was made
from that.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from controlplane.core import request_errors
from controlplane.core.trust import over
from controlplane.store import api, errors
from controlplane.trust.registry import Registry

LONGEST_S = 3_600.0
"""Until it is looked again in any case: a machine's clock may be set."""
RETRY_S = 5.0

_log = structlog.get_logger()


class Forgetting:
    """`run` it while this instance leads."""

    def __init__(self, registry: Registry, now_ms: Callable[[], int]) -> None:
        self._registry = registry
        self._now_ms = now_ms

    async def run(self, fence: api.Fence) -> None:
        """Runs until cancelled. Raises Deposed when another leads."""
        woken = asyncio.Event()
        with self._registry.listening(lambda _: woken.set()):
            await self._registry.loaded.wait()
            while True:
                woken.clear()
                try:
                    pause_s = await self._look(fence)
                except (errors.Conflict, errors.Temporary) as error:
                    _log.info("tokens that are over were not forgotten; next time", why=str(error))
                    pause_s = await self._after_trouble()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await woken.wait()

    async def _look(self, fence: api.Fence) -> float:
        """In how many seconds to look again."""
        try:
            trust = self._registry.trust
        except request_errors.NotReachable:  # nothing was founded yet: that changes it
            return LONGEST_S
        now_ms = self._now_ms()
        step = over.forget(trust, now_ms)
        if step.next is not None:
            await self._registry.commit(trust=step.next, fence=fence)
            if step.forgotten:
                _log.info("tokens that are over are forgotten", tokens=",".join(step.forgotten))
        return LONGEST_S if step.wake_at is None else min(LONGEST_S, max(0.0, (step.wake_at - now_ms) / 1000))

    async def _after_trouble(self) -> float:
        """In how many seconds to look again, with what is in the store by now."""
        with contextlib.suppress(errors.Temporary):
            await self._registry.catch_up()
        return RETRY_S

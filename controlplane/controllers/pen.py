"""The leader's one pen: whoever holds it sees everything that was written before, and nobody else writes meanwhile.

The naive design lets every loop plan on the cache and relies on conflicts. It works, but under load the loops of one
leader, which all change tasks, mostly fight each other. With one pen a conflict can only come from a person's write.
The cost is nothing: etcd puts all writes into one order anyway.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

import structlog

from controlplane.core import plan
from controlplane.store import api, cache, snapshots, typed, writer

log = structlog.get_logger()

CAUGHT_UP_TIMEOUT_S = 10.0


class Pen:
    """Plans and commits, one planner after another. Raises what the store raises; `Deposed` ends the leadership."""

    def __init__(self, store: api.Store, known: cache.Cache, fence: api.Fence) -> None:
        self._store = store
        self._cache = known
        self._fence = fence
        self._turn = asyncio.Lock()

    async def write(self, make: Callable[[snapshots.Snapshot], plan.Plan]) -> plan.Plan:
        """Asks `make` for a plan on the newest state, commits it, and waits until the cache shows it."""
        async with self._turn:
            made = make(self._cache.snapshot())
            if made.changes:
                log.debug("commit", plan=made.describe())
                groups = [[_to_store(change)] for change in made.changes]
                revision = await writer.write(self._store, groups, fence=self._fence)
                if revision is not None:
                    await self._cache.wait_for(revision, CAUGHT_UP_TIMEOUT_S)
            return made


def _to_store(change: plan.Change) -> api.Change:
    match change:
        case plan.Write(value=value):
            return typed.put(value)
        case plan.Remove(value=value):
            return typed.delete(value)
        case _:
            assert_never(change)

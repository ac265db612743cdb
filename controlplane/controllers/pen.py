"""The leader's one pen: whoever holds it sees everything that was written before, and nobody else writes meanwhile.

The naive design lets every loop plan on the cache and relies on conflicts. It works, but under load the loops of one
leader, which all change tasks, mostly fight each other. With one pen a conflict can only come from a person's write.
The cost is nothing: etcd puts all writes into one order anyway.

Versions alone do not protect a planner from a cache that lags: a new task has a name of its own and conflicts with
nothing, so a plan that is made again because its answer was lost would fill a slot twice. After a write whose outcome
the cache has not shown, the pen therefore waits for everything that the store holds before it asks for another plan.
"""

import asyncio
from collections.abc import Callable

import structlog

from controlplane import metrics
from controlplane.core import plan
from controlplane.store import api, cache, errors, snapshots, typed, writer

log = structlog.get_logger()

CAUGHT_UP_TIMEOUT_S = 10.0

KEPT_REVISIONS = 10_000
"""History that a watch may resume from: some minutes of a busy cluster. What is older is compacted, or a store that is
written to would grow for ever. Who writes does it, so that an idle cluster stays idle."""


class Pen:
    """Plans and commits, one planner after another. Raises what the store raises; `Deposed` ends the leadership."""

    def __init__(self, store: api.Store, known: cache.Cache, fence: api.Fence) -> None:
        self._store = store
        self._cache = known
        self._fence = fence
        self._turn = asyncio.Lock()
        self._unsure = False
        self._compacted = 0

    async def write(self, make: Callable[[snapshots.Snapshot], plan.Plan]) -> plan.Plan:
        """Asks `make` for a plan on the newest state, commits it, and waits until the cache shows it."""
        async with self._turn:
            if self._unsure:
                await self._catch_up()
            made = make(self._cache.snapshot())
            if made.changes:
                log.debug("commit", plan=made.describe())
                self._unsure = True
                groups = [[one] for one in map(typed.of_change, made.changes) if _fits(one)]
                revision = await writer.write(self._store, groups, fence=self._fence)
                if revision is not None:
                    await self._cache.wait_for(revision, CAUGHT_UP_TIMEOUT_S)
                self._unsure = False
                if revision is not None:
                    await self._compact(revision)
            return made

    async def _catch_up(self) -> None:
        """Waits until the cache shows all that the store holds now."""
        listing = await self._store.list(self._fence.key)
        await self._cache.wait_for(listing.revision, CAUGHT_UP_TIMEOUT_S)
        self._unsure = False

    async def _compact(self, revision: int) -> None:
        """Forgets old history, a good piece at a time."""
        if revision - self._compacted < 2 * KEPT_REVISIONS:
            return
        self._compacted = revision - KEPT_REVISIONS
        try:
            await self._store.compact(self._compacted)
        except (errors.Temporary, errors.Compacted) as error:
            log.info("history not compacted; next time", why=str(error))


def _fits(change: api.Change) -> bool:
    """Whether any commit can hold the change. One that none can is told and left out: the object stays as it was, and
    everything else is written, by this leader and by each that follows it.
    """
    size_bytes = api.size_of(change)
    if size_bytes <= api.MAX_COMMIT_BYTES:
        return True
    log.error("an object is too large to be stored, and stays as it was", key=change.key, bytes=size_bytes)
    metrics.TOO_LARGE.inc()
    return False

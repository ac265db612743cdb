"""The loop that every controller is: wait for keys, look at the state, ask the planner, commit, rest, and again.

Two rules. Keys only say what to look at: a planner decides from the snapshot, so a loop that missed every event but
the last does the same. And no key is twice in the queue: what changes ten times while the loop is busy is looked at
once.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from controlplane import metrics
from controlplane.controllers.pen import Pen
from controlplane.core import plan
from controlplane.store import errors
from controlplane.store.snapshots import Change, Snapshot

log = structlog.get_logger()

FIRST_BACKOFF_S = 0.02
LONGEST_BACKOFF_S = 1.0

REST = 2
"""A planner rests so many times as long as its last turn took, from waiting for the pen until its plan was seen to be
stored. The busier the instance and the slower the store, the more of what happens is looked at, and written, together.
"""
SHORTEST_REST_S = 0.002
"""Less is not worth a timer: a turn without a write takes less than half of it."""
LONGEST_REST_S = 0.05


class Planner(Protocol):
    """A controller's knowledge: what concerns it, and what to do about it."""

    name: str

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        """The keys to look at again after this change. `snapshot` is the newest, not that of the change."""
        ...

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        """Every key there is: what a new leader looks at first."""
        ...

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:
        """What to do about these keys. Pure but for ids that it was given a source of."""
        ...

    def done(self, keys: frozenset[str]) -> None:
        """The plan for these keys is stored."""


class Loop:
    """Runs one planner."""

    def __init__(self, planner: Planner, pen: Pen, now_ms: Callable[[], int], jitter: random.Random) -> None:
        self._planner = planner
        self._pen = pen
        self._now_ms = now_ms
        self._jitter = jitter
        self._dirty: set[str] = set()
        self._timers: dict[str, int] = {}
        self._woken = asyncio.Event()

    def wake(self, keys: Iterable[str]) -> None:
        """Puts keys into the queue."""
        self._dirty.update(keys)
        if self._dirty:
            self._woken.set()

    def notice(self, change: Change, snapshot: Snapshot) -> None:
        """Puts the keys that a change concerns into the queue."""
        self.wake(self._planner.keys_of(change, snapshot))

    def look_at_everything(self, snapshot: Snapshot) -> None:
        """Puts every key into the queue: at the start, and after changes were missed."""
        self.wake(self._planner.all_keys(snapshot))

    async def run(self) -> None:
        """Runs until cancelled, or until the store says that this instance leads no more (`Deposed`)."""
        backoff_s = FIRST_BACKOFF_S
        clock = asyncio.get_running_loop().time
        while True:
            keys = await self._next_keys()
            began = clock()
            try:
                made = await self._pen.write(lambda snapshot: self._decide(snapshot, keys))  # noqa: B023 - awaited at once
            except (errors.Conflict, errors.Temporary) as error:
                log.info("plan not stored; looking again", controller=self._planner.name, why=str(error))
                metrics.CONTROLLER_RETRIES.labels(self._planner.name).inc()
                self.wake(keys)
                await asyncio.sleep(backoff_s * self._jitter.uniform(0.5, 1.5))
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
                continue
            backoff_s = FIRST_BACKOFF_S
            metrics.stored(self._planner.name, made, self._now_ms())
            self._planner.done(keys)
            self._set_timers(keys, made.wake_at)
            if (rest_s := REST * (clock() - began)) >= SHORTEST_REST_S:
                await asyncio.sleep(min(rest_s, LONGEST_REST_S))

    def _decide(self, snapshot: Snapshot, keys: frozenset[str]) -> plan.Plan:
        with metrics.deciding(self._planner.name):
            return self._planner.decide(snapshot, keys, self._now_ms())

    def _set_timers(self, keys: frozenset[str], wake_at: int | None) -> None:
        for key in keys:
            if wake_at is None:
                self._timers.pop(key, None)
            else:
                self._timers[key] = wake_at

    async def _next_keys(self) -> frozenset[str]:
        """Waits until there is something to look at, or a planner's moment has come."""
        while True:
            now_ms = self._now_ms()
            due = {key for key, moment in self._timers.items() if moment <= now_ms}
            if self._dirty or due:
                keys = frozenset(self._dirty | due)
                self._dirty.clear()
                self._woken.clear()
                for key in due:
                    del self._timers[key]
                return keys
            first = min(self._timers.values(), default=None)
            try:
                async with asyncio.timeout(None if first is None else max(first - now_ms, 1) / 1000):
                    await self._woken.wait()
            except TimeoutError:
                continue

"""An event loop whose time is a number, and whose order can be drawn from a seed.

Nothing waits: when nobody is ready, time jumps to the next timer, so an hour of waiting takes no time. What runs here
may wait for nothing outside the loop. With a source of chance, callbacks that are ready at one moment run in an order
drawn from it: each seed tries another interleaving, and the same seed always the same.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")

START_MS = 1_700_000_000_000
"""The wall clock at virtual time 0."""


class Stuck(AssertionError):  # noqa: N818 - named after what happened
    """Nobody is ready and no timer runs: the simulated world waits for something that cannot come."""


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number: sets of tasks, as TaskGroup keeps them, then have one order."""

    _numbers = itertools.count()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._number = next(_Task._numbers)
        super().__init__(*arguments, **keywords)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Jump:
    """Stands where a selector would: instead of waiting, time passes."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            raise Stuck("nobody is ready and no timer runs")
        self._loop.now_s += timeout_s
        return []

    def close(self) -> None:
        """There is nothing to close."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`now_s` is the virtual time in seconds. Without `chance`, callbacks run as they became ready."""

    def __init__(self, chance: random.Random | None = None) -> None:
        super().__init__()
        self.now_s = 0.0
        self._chance = chance
        self._selector = _Jump(self)
        self._ready: deque[asyncio.Handle]
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        """The wall clock that the simulated programs see, in milliseconds since 1970."""
        return START_MS + int(self.now_s * 1000)

    def _run_once(self) -> None:
        if self._chance is not None and len(self._ready) > 1:
            order = list(self._ready)
            self._chance.shuffle(order)
            self._ready.clear()
            self._ready.extend(order)
        super()._run_once()  # type: ignore[misc]  # private, and the one place where order can be drawn

    def _process_events(self, _events: list[Any]) -> None:
        """No files, no events."""

    def _write_to_self(self) -> None:
        """No other thread, nobody to wake."""


def _make_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: Context | None = None,
) -> asyncio.Task[T]:
    return _Task(work, loop=loop, context=context)


def run(work: Coroutine[Any, Any, T], chance: random.Random) -> T:
    """Runs `work` to its end in virtual time, then cancels what is left."""
    loop = VirtualLoop(chance)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in sorted(left, key=hash):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()

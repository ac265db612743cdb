"""An event loop whose time is a number, and whose order can be drawn from a seed.

Nothing waits: when nobody is ready, time jumps to the next timer, so an hour of waiting takes no time. What runs here
may wait for nothing outside the loop. With a source of chance, callbacks that are ready at one moment run in an order
drawn from it: each seed tries another interleaving, and the same seed always the same.

What runs in a context where `OWNER` is set belongs to a simulated process of that name. A process can be frozen, as by
SIGSTOP: none of its callbacks runs and none of its timers fires until it is thawed, and then all of them are due.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

OWNER: ContextVar[str] = ContextVar("OWNER", default="")
"""The simulated process that a callback belongs to; empty for the world itself."""


class Stuck(AssertionError):  # noqa: N818 - named after what happened
    """Nobody is ready and no timer runs: the simulated world waits for something that cannot come."""


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number in its loop: sets of tasks, as TaskGroup keeps them, then have one order.

    In its loop, since a set's order depends on its members' hashes and not on their differences alone: where counting
    began would tell one run of a seed from the next.
    """

    def __init__(self, number: int, work: Any, **keywords: Any) -> None:
        self._number = number
        super().__init__(work, **keywords)

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
        self._scheduled: list[asyncio.TimerHandle]
        self._frozen: dict[str, list[asyncio.Handle]] = {}
        self.task_numbers = itertools.count()
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self.now_s

    def freeze(self, owner: str) -> None:
        """Stops the process `owner` where it stands."""
        self._frozen.setdefault(owner, [])

    def thaw(self, owner: str) -> None:
        """Lets it go on; it does not know that time has passed."""
        self._ready.extend(self._frozen.pop(owner, ()))

    def is_frozen(self, owner: str) -> bool:
        return owner in self._frozen

    def thaw_all(self) -> None:
        for owner in list(self._frozen):
            self.thaw(owner)

    def _process_events(self, _events: list[Any]) -> None:
        """Stands between the jump and the callbacks: all that is due becomes ready, less what is frozen, in some order.

        The base class moves due timers after this call; done here, timers take part in the draw, and freeze.
        """
        while self._scheduled and self._scheduled[0].when() <= self.now_s:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        ready = list(self._ready)
        self._ready.clear()
        if self._frozen:
            ready = [handle for handle in ready if not self._hold(handle)]
        if self._chance is not None:
            self._chance.shuffle(ready)
        self._ready.extend(ready)

    def _hold(self, handle: asyncio.Handle) -> bool:
        held = self._frozen.get(handle._context.get(OWNER, ""))
        if held is not None:
            held.append(handle)
        return held is not None

    def _write_to_self(self) -> None:
        """No other thread, nobody to wake."""


def _make_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T] | Generator[Any, None, T],
    context: Context | None = None,
) -> asyncio.Task[T]:
    assert isinstance(loop, VirtualLoop), "whose tasks they are"
    return _Task(next(loop.task_numbers), work, loop=loop, context=context)


def running_loop() -> VirtualLoop:
    """The loop that runs, which has to be a virtual one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "this runs in virtual time only"
    return loop


def run(work: Coroutine[Any, Any, T], chance: random.Random) -> T:
    """Runs `work` to its end in virtual time, then cancels what is left."""
    loop = VirtualLoop(chance)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        loop.thaw_all()
        left = asyncio.all_tasks(loop)
        for task in sorted(left, key=hash):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()

"""Run coroutine tests on a fresh event loop, with a bound on everything they wait for.

A test that asks for `virtual_time`, or gets a fixture with that attribute set, runs on a loop whose clock jumps to the
next timer as soon as nothing else is left to do: an hour of waiting takes no time. It may wait for nothing outside the
loop.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

from tests.support.virtualtime import VirtualLoop

P = ParamSpec("P")


def bounded(
    timeout_s: float, *, virtual_time: bool = False
) -> Callable[[Callable[P, Coroutine[Any, Any, None]]], Callable[P, None]]:
    """Make a coroutine function a test that fails after `timeout_s` seconds; fixtures are passed by name as usual."""

    def decorate(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            async def scenario() -> None:
                async with asyncio.timeout(timeout_s):
                    await test(*args, **kwargs)

            virtual = virtual_time or any(getattr(value, "virtual_time", False) for value in kwargs.values())
            with asyncio.Runner(loop_factory=VirtualLoop if virtual else None) as runner:
                runner.run(scenario())

        return run

    return decorate


async def until(holds: Callable[[], bool], *, what: str, timeout_s: float = 5, every_s: float = 0.01) -> None:
    """Wait for a condition that nothing announces."""
    try:
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None


async def within(timeout_s: float, awaitable: Awaitable[Any], *, what: str) -> Any:
    """The awaitable's result, or a failure that says what was waited for."""
    try:
        return await asyncio.wait_for(awaitable, timeout_s)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None

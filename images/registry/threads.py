"""Work on the disk, from an event loop.

The rule: nobody goes on while a thread still works for them. `asyncio.to_thread` leaves at once when its task is
cancelled, and the thread then writes to a descriptor that somebody has closed, or reopened as another file.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

P = ParamSpec("P")
T = TypeVar("T")


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's result from a worker thread; a cancellation waits for the function to end."""
    call = functools.partial(function, *args, **kwargs)
    work = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({work})
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what the caller is told
        raise


@contextlib.asynccontextmanager
async def entered(manager: contextlib.AbstractContextManager[T]) -> AsyncIterator[T]:
    """A blocking context manager, entered and left in worker threads."""
    stack = contextlib.ExitStack()
    try:
        value = await run(stack.enter_context, manager)
        yield value
    except BaseException as error:
        await run(stack.__exit__, type(error), error, error.__traceback__)
        raise
    await run(stack.close)


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all, in order; the first that fails ends the others and is what is raised."""

    async def wait_for(work: Awaitable[T]) -> T:
        return await work

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait_for(work)) for work in works]
    except BaseExceptionGroup as failed:
        raise _first(failed) from None
    return [task.result() for task in tasks]


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

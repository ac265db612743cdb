"""Running things side by side until one of them ends as expected.

Why not catch what a TaskGroup raises: on Python 3.11 a group whose child fails while the group is being cancelled
raises the failure and forgets the cancellation. A loop around it that goes on after failures then cannot be stopped.
Here the children never fail with what is expected, so nothing competes with a cancellation.
"""

import asyncio
from collections.abc import Coroutine


async def until_failure(*works: Coroutine[object, object, None], expected: tuple[type[Exception], ...]) -> Exception:
    """Runs all until the first of them raises something `expected`, cancels the others, and returns it.

    Anything else that is raised comes out as from a TaskGroup. A work that ends without raising is waited for no more.
    """
    first: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_report(work, expected, first)) for work in works]
        failure = await first
        for task in tasks:
            task.cancel()
    return failure


async def beside(
    work: Coroutine[object, object, None],
    companion: Coroutine[object, object, None],
    *,
    expected: tuple[type[Exception], ...],
) -> None:
    """Runs `work` to its end, with `companion` beside it, which is then cancelled.

    What either raises of the `expected` ends both, and comes out as it is, not in a group.
    """
    first: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_report(_then(work, first), expected, first)),
            group.create_task(_report(companion, expected, first)),
        ]
        failure = await first
        for task in tasks:
            task.cancel()
    if failure is not None:
        raise failure


async def _then(work: Coroutine[object, object, None], first: asyncio.Future[Exception | None]) -> None:
    await work
    if not first.done():
        first.set_result(None)


async def _report(
    work: Coroutine[object, object, None],
    expected: tuple[type[Exception], ...],
    first: asyncio.Future[Exception] | asyncio.Future[Exception | None],
) -> None:
    try:
        await work
    except* expected as failures:
        if not first.done():
            first.set_result(leaf(failures))


def leaf(failure: BaseException) -> Exception:
    """The first plain exception of a group; groups nest as task groups do."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    assert isinstance(failure, Exception), "only exceptions are expected"
    return failure

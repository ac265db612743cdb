"""Things that run side by side end together, and a cancellation is never forgotten."""

import asyncio

import pytest

from protos import running
from tests.support.aio import bounded


class Expected(Exception):  # noqa: N818 - what the tests wait for
    """Ends what runs."""


async def _fail_after(seconds: float, error: Exception) -> None:
    await asyncio.sleep(seconds)
    raise error


@bounded(60, virtual_time=True)
async def test_the_first_expected_failure_ends_all_and_is_returned() -> None:
    failure = await running.until_failure(
        _fail_after(2, Expected("late")), _fail_after(1, Expected("early")), expected=(Expected,)
    )
    assert str(failure) == "early"
    assert asyncio.get_running_loop().time() < 1.5


@bounded(60, virtual_time=True)
async def test_a_failure_inside_groups_comes_out_plain() -> None:
    async def nested() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_fail_after(1, Expected("deep")))

    assert str(await running.until_failure(nested(), expected=(Expected,))) == "deep"


@bounded(60, virtual_time=True)
async def test_what_is_not_expected_is_raised() -> None:
    with pytest.raises(ExceptionGroup) as group:
        await running.until_failure(_fail_after(1, ValueError("bug")), expected=(Expected,))
    assert isinstance(running.leaf(group.value), ValueError)


@bounded(60, virtual_time=True)
async def test_a_cancellation_at_the_moment_of_a_failure_is_not_forgotten() -> None:
    async def forever() -> None:
        while True:
            await running.until_failure(_fail_after(1, Expected()), expected=(Expected,))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(forever())
        await asyncio.sleep(5)
        asyncio.get_running_loop().call_later(1, task.cancel)
        await asyncio.wait([task], timeout=30)
        assert task.cancelled()


@bounded(60, virtual_time=True)
async def test_beside_ends_with_its_work_and_cancels_the_companion() -> None:
    ended: list[str] = []

    async def companion() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("companion")

    await running.beside(asyncio.sleep(1), companion(), expected=(Expected,))
    assert ended == ["companion"]


@bounded(60, virtual_time=True)
async def test_beside_raises_the_companions_failure_as_it_is() -> None:
    with pytest.raises(Expected, match="gone"):
        await running.beside(asyncio.sleep(1000), _fail_after(1, Expected("gone")), expected=(Expected,))

"""Threads, turns and pace: nobody goes on too early, and nobody waits without an end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import digest as digests
from images import errors
from images.registry import pace, threads, turns
from images.store import ImageStore
from tests.support.aio import bounded

BLOB, OTHER = digests.of_bytes(b"a"), digests.of_bytes(b"b")


@bounded(10)
async def test_a_cancelled_task_goes_on_only_when_its_thread_has_ended() -> None:
    begun, free, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        free.wait(5)
        ended.set()

    task = asyncio.ensure_future(threads.run(work))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        task.cancel()
        await asyncio.wait({task}, timeout=0.02)
    assert not task.done()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@bounded(10)
async def test_what_was_entered_while_cancelled_is_left() -> None:
    """A lock that was taken by a thread nobody waited for would be held for ever."""
    begun, free = threading.Event(), threading.Event()
    told: list[str] = []

    @contextlib.contextmanager
    def lock() -> Iterator[None]:
        begun.set()
        free.wait(5)
        told.append("taken")
        try:
            yield
        finally:
            told.append("given back")

    async def hold() -> None:
        async with threads.entered(lock()):
            told.append("held")

    task = asyncio.ensure_future(hold())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["taken", "given back"]


@bounded(10)
async def test_of_many_works_the_first_failure_is_told_and_ends_the_others() -> None:
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise errors.NotFound("gone")

    with pytest.raises(errors.NotFound, match="gone"):
        await threads.together([endless(), fail()])
    assert ended.is_set()


@bounded(10)
async def test_one_at_a_time_for_each_blob(tmp_path: Path) -> None:
    """Others wait for the same blob and for no other one; nothing is left behind."""
    store = ImageStore(tmp_path)
    inside = most = 0

    async def take() -> None:
        nonlocal inside, most
        async with turns.taken(store, BLOB):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    async with turns.taken(store, OTHER):
        await asyncio.gather(*(take() for _ in range(10)))
    assert most == 1
    assert list((tmp_path / "locks").glob("blob-*")) == []


@bounded(10)
async def test_a_turn_that_never_comes_is_told(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    async with turns.taken(store, BLOB):
        with pytest.raises(errors.Busy, match=f"{BLOB} is fetched by another process"):
            async with turns.taken(store, BLOB, timeout_s=0.1):
                pytest.fail("two at a time")


@bounded(10)
async def test_pace_is_shared_and_not_saved_up() -> None:
    """The worked example, with a tenth of its numbers; and a pause gives nobody a head start."""
    clock = asyncio.get_running_loop()
    shared = pace.Pace(10 << 20)
    for _ in range(2):
        began_s = clock.time()
        await asyncio.gather(*(shared.spend(100 << 10) for _ in range(4)))
        assert clock.time() - began_s >= 0.9 * 0.4 * 100 / 1024
        await asyncio.sleep(0.05)
    began_s = clock.time()
    await pace.Pace(None).spend(1 << 40)
    assert clock.time() - began_s < 1

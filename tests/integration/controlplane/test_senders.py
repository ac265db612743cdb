"""Whoever sends images: many at once, those who trickle, and what they leave for others."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.core import request_errors
from controlplane.images import pace
from images import digest
from protos.ending import Ending
from protos.orch.v1 import control_pb2 as pb
from tests.support import aio, api_world, pushing
from tests.support.api_world import refusal
from tests.support.pushing import MIB


async def at_intervals(count: int, size: int, every_s: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(every_s)
        yield b"x" * size


@aio.bounded(1_000, virtual_time=True)
async def test_a_sender_who_trickles_is_given_up_and_a_slow_one_is_not() -> None:
    with pytest.raises(TimeoutError):
        async for _ in pace.steady(at_intervals(1_000, 1, 0.9), within_s=10, least_bytes=100):
            pass
    loop = asyncio.get_running_loop()
    assert loop.time() <= 10, "and not at the end of the day"
    slow = [len(chunk) async for chunk in pace.steady(at_intervals(50, 60, 4.9), within_s=10, least_bytes=100)]
    assert sum(slow) == 3_000


@aio.bounded(1_000, virtual_time=True)
async def test_a_slow_disk_here_is_nobodys_fault() -> None:
    come = 0
    async for chunk in pace.steady(at_intervals(20, 10, 0.4), within_s=10, least_bytes=100):
        await asyncio.sleep(5)
        come += len(chunk)
    assert come == 200


@aio.bounded(30)
async def test_a_push_that_trickles_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "CLIENT_S", 0.2)
    mine = pushing.made(tmp_path / "mine")
    layer = mine.resolve("web:1").layers[0].digest
    async with api_world.opened(tmp_path, known=()) as world:
        over = asyncio.Event()

        async def trickle() -> AsyncIterator[pb.PushBlobRequest]:
            yield pb.PushBlobRequest(start=pb.PushBlobStart(digest=layer, size=mine.size_bytes(layer)))
            yield pb.PushBlobRequest(chunk=b"x")
            await over.wait()

        with pytest.raises(grpc.aio.AioRpcError):
            await world.stub.PushBlob(trickle())
        await aio.until(lambda: not world.images._uploading, what="its place is free")
        over.set()
        assert (await pushing.missing(world.stub, mine, "web:1"))[layer] == 1, "what has come stays"


@aio.bounded(60)
async def test_what_comes_at_the_same_time_does_not_pass_the_limit_together(tmp_path: Path) -> None:
    contents = [os.urandom(3 * MIB) for _ in range(8)]
    async with api_world.opened(tmp_path, images_limit_bytes=10 * MIB, known=()) as world:

        async def push(content: bytes) -> bool:
            start = pb.PushBlobStart(digest=digest.of_bytes(content), size=len(content))
            try:
                await world.images.push_blob(start, one(content))
            except request_errors.Overloaded:
                return False
            return True

        at_once = await asyncio.gather(*map(push, contents))
        here = sum(path.stat().st_size for path in (tmp_path / "images/blobs/sha256").iterdir())
        assert here == at_once.count(True) * 3 * MIB <= 10 * MIB
        one_after_another = [await push(content) for content in contents]
        assert one_after_another.count(True) == 3


@aio.bounded(30)
async def test_two_archives_do_not_pass_the_limit_together(tmp_path: Path) -> None:
    """Each alone would fit."""
    async with api_world.opened(tmp_path, images_limit_bytes=10 * MIB, known=()) as world:
        calls = [world.stub.ImportImage() for _ in range(2)]
        endings = [Ending(call) for call in calls]
        for call in calls:
            await call.write(pb.ImportImageRequest(options=pb.ImportImageOptions(name="hello")))
        for call in [call for _ in range(6) for call in calls if not call.done()]:
            with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # it may be refused meanwhile
                await call.write(pb.ImportImageRequest(chunk=b"x" * MIB))
        await aio.until(lambda: any(call.done() for call in calls), what="one of them is refused")
        refused = [await ending.status() for call, ending in zip(calls, endings, strict=True) if call.done()]
        assert {code for code, _ in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        await aio.until(lambda: len(world.images._uploading) < 2, what="it is gone")
        assert await world.images.used_bytes() <= 10 * MIB
        for call in calls:
            call.cancel()


async def one(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


@aio.bounded(30)
async def test_an_archive_on_its_way_takes_room_and_keeps_no_removal_waiting(tmp_path: Path) -> None:
    """It has no name on the disk, and may take hours."""
    mine = pushing.made(tmp_path / "mine", size=3 * MIB)
    async with api_world.opened(tmp_path, images_limit_bytes=5 * MIB, known=()) as world:
        junk = world.images.store.put_bytes(b"nothing needs it")
        call = world.stub.ImportImage()
        await call.write(pb.ImportImageRequest(options=pb.ImportImageOptions(name="hello")))
        await call.write(pb.ImportImageRequest(chunk=b"x" * (3 * MIB)))
        await aio.until(lambda: sum(world.images._uploading.values()) == 3 * MIB, what="it has come so far")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pushing.missing(world.stub, mine, "web:1")
        assert refusal(raised.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        await world.images.tidy()
        assert not world.images.has(junk)
        call.cancel()
        await aio.until(lambda: not world.images._uploading, what="the archive is gone")
        assert await pushing.missing(world.stub, mine, "web:1")

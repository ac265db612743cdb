"""How a call ended is told in the other side's words, whenever they come."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from protos.ending import Ending
from tests.support.aio import bounded

REFUSED = grpc.StatusCode.PERMISSION_DENIED, "node n1 was removed"
UNSENT = grpc.StatusCode.INTERNAL, "Internal error from Core"


class Call:
    """Ends as it is told to. As with `grpc.aio`, what could not be sent is not called back for."""

    def __init__(self) -> None:
        self._status: tuple[grpc.StatusCode, str | None] | None = None
        self._ended = asyncio.Event()
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    async def code(self) -> grpc.StatusCode:
        return (await self._end())[0]

    async def details(self) -> str | None:
        return (await self._end())[1]

    async def _end(self) -> tuple[grpc.StatusCode, str | None]:
        await self._ended.wait()
        assert self._status is not None
        return self._status

    def tell(self, status: tuple[grpc.StatusCode, str | None]) -> None:
        self.lose(status)
        for callback in self._callbacks:
            callback(self)

    def lose(self, status: tuple[grpc.StatusCode, str | None] = UNSENT) -> None:
        self._status = status
        self._ended.set()


@bounded(60, virtual_time=True)
async def test_what_could_not_be_sent_does_not_hide_why() -> None:
    """Whether it comes before the status or after it."""
    before, after = Call(), Call()
    endings = [Ending(before), Ending(after)]
    before.lose()
    asyncio.get_running_loop().call_later(0.5, before.tell, REFUSED)
    after.tell(REFUSED)
    after.lose()
    assert [await ending.status() for ending in endings] == [REFUSED, REFUSED]


@bounded(60, virtual_time=True)
async def test_without_a_status_what_is_known_is_told_after_a_second() -> None:
    call = Call()
    ending = Ending(call)
    call.lose()
    assert await ending.status() == UNSENT
    assert asyncio.get_running_loop().time() == pytest.approx(1)


@bounded(60, virtual_time=True)
async def test_the_end_is_waited_for() -> None:
    """A status without a text has an empty one."""
    call = Call()
    ending = Ending(call)
    asyncio.get_running_loop().call_later(5, call.tell, (grpc.StatusCode.OK, None))
    assert await ending.status() == (grpc.StatusCode.OK, "")
    assert asyncio.get_running_loop().time() >= 5

"""How a streaming call ended, in the words of the other side.

When the other side ends a call while this side writes to it, grpc.aio forgets the status that it was told and says
INTERNAL, "Internal error from Core", from then on (grpcio 1.85). Whoever asks the call then never hears why they were
refused. So the status is kept here the moment that it comes.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

import grpc

_UNSENT: Final = "Internal error from Core"
_LATE_S: Final = 1.0
"""What a status may come later than what could not be sent. The core makes one where the connection is lost."""

T = TypeVar("T")
Status = tuple[grpc.StatusCode, str]


class Call(Protocol):
    """What `grpc.aio` returns for a call that is a stream."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """To hear of the end."""

    async def code(self) -> grpc.StatusCode:
        """Waits for the end."""
        ...

    async def details(self) -> str | None:
        """Waits for the end."""
        ...


class Ending:
    """To be made with the call, before it can have ended."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._kept: Status | None = None
        self._told = asyncio.Event()
        call.add_done_callback(self._keep)

    async def status(self) -> Status:
        """The code and the text. Waits for the end of the call."""
        known = await self._call.code(), await self._call.details() or ""
        if self._kept is None and known[1] == _UNSENT:
            try:
                async with asyncio.timeout(_LATE_S):
                    await self._told.wait()
            except TimeoutError:
                return known  # there is nothing better
        return self._kept or known

    def _keep(self, call: Call) -> None:
        code, details = _at_once(call.code()), _at_once(call.details()) or ""
        if details != _UNSENT:
            self._kept = code, details
            self._told.set()


def _at_once(known: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    known.close()
    raise AssertionError("a call that has ended waits for its end")

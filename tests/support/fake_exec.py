"""A command in a container of the fake machine."""

import asyncio
from collections.abc import AsyncIterator

from protos.orch.v1 import control_pb2 as cpb


class FakeExec:
    """A command that writes its input back, says what signals it got, and ends with its input or `exit N`."""

    def __init__(self, start: cpb.ExecStart) -> None:
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue(100)
        self._code = 0
        if start.command[:1] == ["exit"]:
            self._code = int(start.command[1])
            self._out.put_nowait(None)

    async def write(self, data: bytes) -> None:
        await self._out.put(data)

    async def close_stdin(self) -> None:
        await self._out.put(None)

    async def resize(self, rows: int, columns: int) -> None:
        await self._out.put(f"{rows}x{columns}".encode())

    async def signal(self, number: int) -> None:
        self._code = 128 + number
        await self._out.put(None)

    async def output(self) -> AsyncIterator[tuple[cpb.LogStream.ValueType, bytes]]:
        while (data := await self._out.get()) is not None:
            yield cpb.LOG_STREAM_STDOUT, data

    async def exit_code(self) -> int:
        return self._code

    async def close(self) -> None:
        pass

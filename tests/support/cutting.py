"""A way to a server that cuts every connection after a number of bytes, and counts what passes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

_PIECE_BYTES = 16 << 10


@dataclass(slots=True, kw_only=True)
class Way:
    """`down` are bytes from the server to us, `up` from us to it, both of all connections together."""

    port: int = 0
    connections: int = 0
    cuts: int = 0
    down: int = 0
    up: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def running(address: str, lives: Callable[[], int | None], *, host: str = "127.0.0.1") -> AsyncIterator[Way]:
    """Leads from a port of `host` to `address`; `lives` says for each connection how many bytes (both ways) it may
    carry, None for all.
    """
    there_host, _, port = address.rpartition(":")
    way = Way()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a server calls its handler in a task"
        serving.add(task)
        there, back = await asyncio.open_connection(there_host, int(port))
        line = _Line(way, lives())
        try:
            await line.carry((there, writer), (reader, back))
        finally:
            writer.transport.abort()
            back.transport.abort()

    server = await asyncio.start_server(serve, host, 0)
    way.port = server.sockets[0].getsockname()[1]
    async with server:
        yield way
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


class _Line:
    """One connection and what is left of its life."""

    def __init__(self, way: Way, life: int | None) -> None:
        self._way = way
        self._left = life

    async def carry(
        self,
        down: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        up: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Until one side has said all, which ends a connection of HTTP, or until the cut."""
        way = self._way
        way.connections += 1
        pumps = [asyncio.ensure_future(self._pump(*down, "down")), asyncio.ensure_future(self._pump(*up, "up"))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, which: str) -> None:
        # What was counted has left: a cut finds nothing that is only on its way inside this process.
        target.transport.set_write_buffer_limits(0)
        while data := await source.read(_PIECE_BYTES):
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            setattr(self._way, which, getattr(self._way, which) + len(data))
            target.write(data)
            await target.drain()
            if self._left == 0:
                self._way.cuts += 1
                return

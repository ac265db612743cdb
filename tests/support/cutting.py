"""A way to a server that cuts every connection after a number of bytes, and counts what passes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

_PIECE_BYTES = 16 << 10


@dataclass(slots=True, kw_only=True)
class Way:
    """`down` are bytes from the server to us, `up` from us to it, both of all connections together."""

    port: int = 0
    connections: int = 0
    cuts: int = 0
    down: int = 0
    up: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def running(address: str, lives: Callable[[], int | None]) -> AsyncIterator[Way]:
    """Leads to `address`; `lives` says for each connection how many bytes (both ways) it may carry, None for all."""
    host, _, port = address.rpartition(":")
    way = Way()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way.connections += 1
        there, back = await asyncio.open_connection(host, int(port))
        left = [lives()]

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, down: bool) -> None:
            while data := await source.read(_PIECE_BYTES):
                if left[0] is not None:
                    data = data[: left[0]]
                    left[0] -= len(data)
                way.down += len(data) if down else 0
                way.up += 0 if down else len(data)
                target.write(data)
                await target.drain()
                if left[0] == 0:
                    way.cuts += 1
                    return
            # One side has said all: so has this connection, as far as HTTP goes.

        pumps = [
            asyncio.ensure_future(pump(there, writer, down=True)),
            asyncio.ensure_future(pump(reader, back, down=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, back):
                end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    async with server:
        yield way

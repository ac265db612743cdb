"""A proxy that makes tunnels (CONNECT), and keeps everything that passes, for a test to look through."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Proxy:
    """`asked` are the first lines of requests; `passed` is what went through the tunnels, both ways."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    passed: bytearray = field(default_factory=bytearray)

    async def pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            self.passed += data
            target.write(data)
            await target.drain()


@contextlib.asynccontextmanager
async def running(address: str) -> AsyncIterator[Proxy]:
    """Every tunnel leads to `address`, whatever name was asked for."""
    host, _, port = address.rpartition(":")
    proxy = Proxy()
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a server calls its handler in a task"
        serving.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        proxy.asked.append(head.decode().partition("\r\n")[0])
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        pumps = [asyncio.ensure_future(proxy.pump(reader, back)), asyncio.ensure_future(proxy.pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            back.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield proxy
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

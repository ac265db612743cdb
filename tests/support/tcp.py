"""A TCP relay that tests can make deaf or cut, to lose what a real network would lose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Relay:
    """Forwards connections to a target; `swallow_answers` and `cut` are its faults."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._own_port = 0
        self._swallowing = False
        self._swallowed = asyncio.Event()

    @property
    def endpoint(self) -> str:
        assert self._own_port, "not started"
        return f"127.0.0.1:{self._own_port}"

    async def start(self) -> None:
        """Listen; after `stop`, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._own_port)
        self._own_port = self._server.sockets[0].getsockname()[1]

    def swallow_answers(self) -> None:
        """Requests arrive, answers do not."""
        self._swallowing = True

    async def until_swallowed(self) -> None:
        """Something was answered, and nobody heard it."""
        await self._swallowed.wait()

    def cut(self) -> None:
        """Close what is open; new connections are served faithfully."""
        self._swallowing = False
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        """Cut what is open and refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            self.cut()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, to_writer}
        try:
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(
                    self._pump(reader, to_writer, answers=False), self._pump(to_reader, writer, answers=True)
                )
        finally:
            for each in (writer, to_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        while data := await reader.read(65536):
            if answers and self._swallowing:
                self._swallowed.set()
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side is done; so is the other")


@contextlib.asynccontextmanager
async def relay(target: str) -> AsyncIterator[Relay]:
    made = Relay(target)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()

"""A small HTTP server that stops as servers should: it finishes what it began and closes what is kept open.

It runs in a container, with nothing but Python's own modules. On the stop signal it takes no new connections, answers
what comes on those that it has with `Connection: close`, and ends once none is left.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time

PORT = 8080
ALSO = "ALSO_PORT"
"""The environment variable with another port that it listens on."""
PATIENCE_S = 1.0
"""How long a client that is silent may still begin a request on a connection that it kept."""
READY = "/ready"


class Server:
    """`asked_ready_at`: when a readiness probe was answered first, in seconds since 1970."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.asked_ready_at = 0.0
        self.open: set[asyncio.StreamWriter] = set()
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()
            self.open.discard(writer)
            self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self.stopping.is_set() and not self.open:
            self.over.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection is kept."""
        head = await self._head(reader)
        if head is None:
            return False
        if head.startswith(f"GET {READY} ") and not self.asked_ready_at:
            self.asked_ready_at = time.time()
        kept = "connection: close" not in head.lower() and not self.stopping.is_set()
        body = json.dumps({"task": os.environ.get("ORCH_TASK", ""), "ready_at": self.asked_ready_at}) + "\n"
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if kept else 'close'}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        return kept

    async def _head(self, reader: asyncio.StreamReader) -> str | None:
        """The next request; None when none comes any more."""
        asking = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            head = await asyncio.wait_for(asking, PATIENCE_S if self.stopping.is_set() else None)
        finally:
            stopping.cancel()
            asking.cancel()
        return head.decode()

    async def run(self) -> None:
        """Until the stop signal, and what follows it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        ports = {PORT, int(os.environ.get(ALSO, PORT))}
        sockets = [
            socket.create_server(("::", port), family=socket.AF_INET6, backlog=256, dualstack_ipv6=True)
            for port in ports
        ]
        servers = [await asyncio.start_server(self.serve, sock=each) for each in sockets]
        print("listens", flush=True)
        await self.stopping.wait()
        for server in servers:
            server.close()
        self._look_whether_over()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE_S):
                await self.over.wait()
        print(f"ends with {len(self.open)} connections", flush=True)


if __name__ == "__main__":
    asyncio.run(Server().run())

"""One connection to a launcher or monitor, for an event loop: requests and replies by number, events as they come.

The messages are the runtime's own (`runtime.protocol`); only the waiting is ours.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

from runtime import errors, protocol

CALL_TIMEOUT_S = 150.0


class Connection:
    """Owns the socket. After the other end has gone every call raises PeerGone."""

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._name = name
        self._on_event = on_event
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[protocol.Message]] = {}
        self._last = 0
        self._sending = asyncio.Lock()
        self.closed = False
        self._loop.add_reader(connection, self._readable)

    async def call(self, verb: str, fds: Sequence[int] = (), **fields: Any) -> protocol.Message:
        """The reply to a request; its descriptors belong to the caller. Raises what the other end tells."""
        if self.closed:
            raise errors.PeerGone(f"{self._name} has ended")
        self._last += 1
        number = self._last
        self._waiting[number] = reply = self._loop.create_future()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._send({"id": number, "verb": verb, **fields}, fds)
                message = await reply
        except TimeoutError:
            raise errors.PeerGone(f"{self._name} did not answer {verb!r} within {CALL_TIMEOUT_S:.0f} s") from None
        finally:
            self._waiting.pop(number, None)
        return protocol.Message(body=protocol.result(message.body), fds=message.fds)

    def close(self) -> None:
        """Let go of the other end, which goes on. Requests that wait for an answer fail."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(errors.PeerGone(f"{self._name} has ended"))

    async def _send(self, body: dict[str, Any], fds: Sequence[int]) -> None:
        async with self._sending:
            while True:
                try:
                    protocol.send(self._socket, body, fds)
                except BlockingIOError:
                    await self._writable()
                else:
                    return

    async def _writable(self) -> None:
        ready = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_writer(self._socket, wake)
        try:
            await ready
        finally:
            if not self.closed:
                self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            message = protocol.receive(self._socket)
        except BlockingIOError:
            return
        except (errors.ProtocolError, OSError):
            message = None
        if message is None:
            self.close()
            if self._on_end is not None:
                self._on_end()
        elif "event" in message.body:
            if self._on_event is not None:
                self._on_event(message.body)
        else:
            reply = self._waiting.get(int(message.body.get("id", 0)))
            if reply is None or reply.done():
                message.close()  # whoever asked does not wait any more
            else:
                reply.set_result(message)

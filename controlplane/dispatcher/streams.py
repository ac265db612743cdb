"""Log and exec streams to agents. Nothing ever dials a node: the leader asks over the session, the agent opens.

API ──open(node, request)──► session ──OpenStream──► agent
API ◄──────link────── broker ◄──Stream(first frame: open)── agent
"""

import asyncio
from collections.abc import Callable

from controlplane.dispatcher.sessions import Sessions
from protos.link import Link
from protos.orch.v1 import dispatcher_pb2 as wire

OPEN_TIMEOUT_S = 5.0
FIRST_FRAME_TIMEOUT_S = 5.0
MAX_WAITING = 4_096

AgentLink = Link[wire.StreamFrame, wire.StreamFrame]


class NodeUnreachable(Exception):  # noqa: N818 - what is so, in the words of the field
    """The agent of that node cannot be asked now."""

    def __init__(self, node_id: str, why: str) -> None:
        self.node_id = node_id
        super().__init__(why)


class StreamBroker:
    """Brings together who asks for a stream and the agent that opens it."""

    def __init__(self, sessions: Sessions, new_id: Callable[[], str]) -> None:
        self._sessions = sessions
        self._new_id = new_id
        self._waiting: dict[str, tuple[str, asyncio.Future[_Arrived]]] = {}
        """By stream: the node that was asked, and who waits for it."""

    async def open(self, node_id: str, request: wire.OpenStream) -> AgentLink:
        """A stream to the agent of a node. The caller closes it. Raises NodeUnreachable."""
        session = self._sessions.get(node_id)
        if session is None:
            raise NodeUnreachable(node_id, "its agent has no session")
        if len(self._waiting) >= MAX_WAITING:
            raise NodeUnreachable(node_id, f"{MAX_WAITING} streams are being opened already")
        asked = wire.OpenStream()
        asked.CopyFrom(request)
        asked.stream_id = self._new_id()
        arrived: asyncio.Future[_Arrived] = asyncio.get_running_loop().create_future()
        self._waiting[asked.stream_id] = (node_id, arrived)
        try:
            session.open_stream(asked)
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return _Borrowed(await arrived)
        except asyncio.QueueFull as error:
            raise NodeUnreachable(node_id, "its agent does not read what it is sent") from error
        except TimeoutError as error:
            raise NodeUnreachable(node_id, f"its agent opened no stream within {OPEN_TIMEOUT_S:g} s") from error
        finally:
            del self._waiting[asked.stream_id]

    async def serve(self, link: AgentLink, proven: str | None = None) -> None:
        """Serves a stream that an agent opened, until whoever asked for it closes it.

        `proven`: the node that its certificate is of, where there are any. Another than was asked answers nothing.
        """
        async with asyncio.timeout(FIRST_FRAME_TIMEOUT_S):
            first = await link.receive()
        node_id, waiter = self._waiting.get(first.open.stream_id, ("", None))
        if waiter is None or waiter.done() or proven not in {None, node_id}:
            await link.close("nobody waits for this stream any more")
            return
        arrived = _Arrived(link)
        waiter.set_result(arrived)
        try:
            await arrived.finished.wait()
        finally:
            await link.close("the stream has ended")


class _Arrived:
    """An agent's link on its way to whoever asked for it."""

    def __init__(self, link: AgentLink) -> None:
        self.link = link
        self.finished = asyncio.Event()


class _Borrowed:
    """The asker's end: closing it lets the agent's call end."""

    def __init__(self, arrived: _Arrived) -> None:
        self._arrived = arrived

    async def send(self, message: wire.StreamFrame) -> None:
        await self._arrived.link.send(message)

    async def receive(self) -> wire.StreamFrame:
        return await self._arrived.link.receive()

    async def close(self, reason: str = "") -> None:
        await self._arrived.link.close(reason)
        self._arrived.finished.set()

"""Streams to agents in one process: a test plays the agents, and can cut their lines."""

import asyncio
from collections.abc import Awaitable, Callable

from controlplane.dispatcher.streams import NodeUnreachable
from protos.link import LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire

Serve = Callable[["Pipe", wire.OpenStream], Awaitable[None]]


class Pipe:
    """One end of a link; `other` is the other end. At most `limit` messages are under way."""

    def __init__(self, limit: int = 100) -> None:
        self._inbox: asyncio.Queue[wire.StreamFrame | None] = asyncio.Queue(limit)
        self._lost = ""
        self.other: Pipe = self

    async def send(self, message: wire.StreamFrame) -> None:
        if self._lost:
            raise LinkLost(self._lost)
        await self.other._inbox.put(message)

    async def receive(self) -> wire.StreamFrame:
        if self._lost and self._inbox.empty():
            raise LinkLost(self._lost)
        message = await self._inbox.get()
        if message is None:
            raise LinkLost(self._lost)
        return message

    async def close(self, reason: str = "") -> None:
        for end in (self, self.other):
            if not end._lost:
                end._lost = reason or "closed"
                if not end._inbox.full():
                    end._inbox.put_nowait(None)


class FakeStreams:
    """`agents` says who serves the streams of a node; nodes that are not in it cannot be reached."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.agents: dict[str, Serve] = {}
        self.asked: list[wire.OpenStream] = []
        self._group = group
        self._open: list[tuple[str, Pipe]] = []
        self._serving: list[asyncio.Task[None]] = []

    async def open(self, node_id: str, request: wire.OpenStream) -> Pipe:
        self.asked.append(request)
        if node_id not in self.agents:
            raise NodeUnreachable(node_id, "its agent has no session")
        mine, theirs = Pipe(), Pipe()
        mine.other, theirs.other = theirs, mine
        self._open.append((node_id, mine))
        self._serving.append(self._group.create_task(self._serve(self.agents[node_id], theirs, request)))
        return mine

    async def lose(self, node_id: str) -> None:
        """The node's machine loses its power."""
        del self.agents[node_id]
        for of_node, pipe in self._open:
            if of_node == node_id:
                await pipe.close("connection reset")

    def stop(self) -> None:
        """At the end of the test."""
        for task in self._serving:
            task.cancel()

    @staticmethod
    async def _serve(serve: Serve, pipe: Pipe, request: wire.OpenStream) -> None:
        try:
            await serve(pipe, request)
        except LinkLost:
            return

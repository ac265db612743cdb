"""A `Link` over one streaming call of a gRPC server.

Two rules. The call's handler runs `carry`, and the call lasts as long as what it carries the link for. And whoever else
holds the link (a caller of Logs reads from a stream that an agent opened) sees `LinkLost` when the call ends, whatever
ended it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import grpc
import grpc.aio

from protos.answering import Context
from protos.link import LinkLost

Out = TypeVar("Out")
In = TypeVar("In")

MAX_UNREAD = 16
"""Messages that wait to be received; behind them, gRPC's flow control holds the sender back."""


class GrpcLink(Generic[Out, In]):
    """The server's end. One receiver at a time."""

    def __init__(self, requests: AsyncIterator[In], context: Context) -> None:
        self._requests = requests
        self._context = context
        self._unread: asyncio.Queue[In | None] = asyncio.Queue(MAX_UNREAD)
        self._lost: str | None = None
        self._reason = ""

    async def send(self, message: Out) -> None:
        self._check()
        try:
            await self._context.write(message)
        except (grpc.aio.BaseError, grpc.RpcError, asyncio.InvalidStateError) as error:
            self._lose(f"the call has ended: {error}")
            self._check()

    async def receive(self) -> In:
        if self._unread.empty():
            self._check()
        message = await self._unread.get()
        if message is None:
            self._check()
        assert message is not None, "only a loss puts None into the queue"
        return message

    async def close(self, reason: str = "") -> None:
        """The call ends when its handler returns, which is up to what it carries the link for."""
        if self._lost is None:
            self._reason = reason
            self._lose(reason or "the link was closed")

    async def carry(self, serve: Callable[["GrpcLink[Out, In]"], Awaitable[None]]) -> None:
        """Runs `serve` with this link. Why the link was closed here is told to the other side as the call's status."""
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read())
                await serve(self)
                reader.cancel()
        finally:
            self._lose("the call has ended")
        if self._reason:
            self._context.set_code(grpc.StatusCode.ABORTED)
            self._context.set_details(self._reason)

    async def _read(self) -> None:
        async for message in self._requests:
            await self._unread.put(message)
        self._lose("the other side has ended the stream")

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
            if self._unread.empty():
                self._unread.put_nowait(None)  # somebody may be waiting; with messages there, nobody is

    def _check(self) -> None:
        if self._lost is not None:
            raise LinkLost(self._lost)

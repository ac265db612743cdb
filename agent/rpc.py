"""gRPC on the agent's side: the one place where channels are made, and what stands behind `Connector` and `Source`.

One rule: there is one channel at a time, to the server of the session; streams and images go over the same one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from agent.errors import AgentError, Refused, Temporary
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc as rpc

CONNECT_TIMEOUT_S = 3.0
UNARY_TIMEOUT_S = 5.0
BLOB_TIMEOUT_S = 3600.0
SESSION_LINGER_S = 0.2
STREAM_LINGER_S = 30.0
"""How long a closed stream may take to deliver its last frames to a reader that is slow."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

OPTIONS: tuple[tuple[str, int], ...] = (
    # The C core finds a dead server by itself: a ping every second, lost after three without an answer.
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # The core times an unanswered ping by this one; without it a dead link is never noticed.
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
)

# The object that ends a stream; the type stubs do not know it.
EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]

Out = TypeVar("Out", bound=Message)
In = TypeVar("In", bound=Message)


def channel(address: str) -> grpc.aio.Channel:
    """The way to a server."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


class CallLink(Link[Out, In]):
    """One bidirectional call as a link.

    gRPC cancels the whole call when a read is cancelled, so a read goes on behind the back of whoever waits for it,
    and the next `receive` gets what it brought. It also ends a call that is given a second message while it takes the
    first, so senders wait for each other.
    """

    def __init__(self, call: "grpc.aio.StreamStreamCall[Out, In]", peer: str, *, linger_s: float) -> None:
        self._call = call
        self._peer = peer
        self._linger_s = linger_s
        self._writing = asyncio.Lock()
        self._reading: asyncio.Future[tuple[Any]] | None = None  # owned by this link, awaited by `close`

    async def send(self, message: Out) -> None:
        try:
            async with self._writing:
                await self._call.write(message)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise LinkLost(await self._why()) from error

    async def receive(self) -> In:
        reading = self._reading or asyncio.gather(self._call.read())
        self._reading = reading
        try:
            (message,) = await asyncio.shield(reading)
        except grpc.aio.AioRpcError as error:
            raise LinkLost(_words(self._peer, error)) from error
        if message is EOF:
            raise LinkLost(await self._why())
        self._reading = None
        received: In = message
        return received

    async def close(self, reason: str = "") -> None:
        """Half-close, so that what was sent arrives, and give the server the time to end the call; none when this
        very task is being cancelled.
        """
        del reason  # gRPC has no word for why a client ends a call
        current = asyncio.current_task()
        try:
            # A timeout inside a task that is being cancelled raises the cancellation and not itself (Python 3.11.2).
            if current is None or not current.cancelling():
                await self._linger()
        finally:
            self._call.cancel()
            if self._reading is not None:
                await asyncio.gather(self._reading, return_exceptions=True)

    async def _linger(self) -> None:
        with contextlib.suppress(grpc.aio.UsageError, asyncio.InvalidStateError, TimeoutError, LinkLost):
            async with asyncio.timeout(self._linger_s):
                await self._call.done_writing()
                while True:
                    await self.receive()

    async def _why(self) -> str:
        if not self._call.done():
            return f"{self._peer}: the stream is closed"
        return f"{self._peer}: {await self._call.details() or (await self._call.code()).name}"


class Server:
    """The control plane, as a Connector and a Source."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._address = ""

    async def connect(self, address: str) -> Link[dpb.AgentMessage, dpb.LeaderMessage]:
        if address != self._address or self._channel is None:
            await self.close()
            self._channel, self._address = channel(address), address
        call = rpc.DispatcherStub(self._channel).Session()  # type: ignore[call-arg]  # the stubs want an iterator
        return CallLink(call, address, linger_s=SESSION_LINGER_S)

    async def open_stream(self) -> Link[dpb.StreamFrame, dpb.StreamFrame]:
        if self._channel is None:
            raise LinkLost("there is no connection to the control plane")
        call = rpc.DispatcherStub(self._channel).Stream()  # type: ignore[call-arg]
        return CallLink(call, self._address, linger_s=STREAM_LINGER_S)

    async def close(self) -> None:
        """Close the channel; what runs over it is lost."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def resolve(self, reference: str) -> str:
        try:
            request = dpb.ResolveImageRequest(reference=reference)
            found = await self._stub().ResolveImage(request, timeout=UNARY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, reference) from error
        return found.digest

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        try:
            request = dpb.FetchBlobRequest(digest=digest, offset=offset)
            async for part in self._stub().FetchBlob(request, timeout=BLOB_TIMEOUT_S):
                yield part.chunk
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, digest) from error

    def _stub(self) -> "rpc.DispatcherAsyncStub":
        if self._channel is None:
            raise Temporary("there is no connection to the control plane", reason="NoControlPlane")
        return rpc.DispatcherStub(self._channel)

    def _refusal(self, error: grpc.aio.AioRpcError, what: str) -> AgentError:
        match error.code():
            case grpc.StatusCode.NOT_FOUND:
                return Refused(
                    f"image {what} is not in the cluster; bring it with `orchctl image push {what}`",
                    reason="ImageMissing",
                )
            case grpc.StatusCode.INVALID_ARGUMENT:
                return Refused(f"image {what}: {error.details()}", reason="ImageInvalid")
            case _:
                return Temporary(f"image {what}: {_words(self._address, error)}", reason="NoControlPlane")


def _words(peer: str, error: grpc.aio.AioRpcError) -> str:
    return f"{peer}: {error.details() or error.code().name}"

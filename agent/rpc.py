"""gRPC on the agent's side: the one place where channels and servers are made, and what stands behind `Connector` and
`Source`.

Two rules. Everything goes to the server of the session, over the session's channel; only a certificate that was
renewed since has a channel of its own, for what begins from then on, until the next session takes its place. And other
nodes get a channel for each blob.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from agent.errors import AgentError, Refused, Temporary
from agent.refusals import Refusals
from protos import pushback
from protos.ending import Ending
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc as rpc
from protos.orch.v1 import trust_pb2 as tpb
from protos.orch.v1 import trust_pb2_grpc as trust_rpc
from trust import credentials
from trust.core.identity import Role
from trust.folder import Material

UNARY_TIMEOUT_S = 5.0
RENEW_TIMEOUT_S = 30.0
BLOB_TIMEOUT_S = 3600.0
FIND_TIMEOUT_S = 15.0
"""Whoever is asked waits a while for somebody who is free."""
MAX_FAILED = 100
BUSY, LACKING, FAILED = "NodeBusy", "NodeLacks", "NodeFailed"
"""Reasons why a node does not give a blob: it gives to others, it does not have it, or something is wrong with it."""
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
    # Despite its name, what one attempt to connect may take: when a thousand agents come back, a handshake waits.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
)

_SERVED = (
    # Two agents on one port would each get half of the calls.
    ("grpc.so_reuseport", 0),
    # A question is a digest.
    ("grpc.max_receive_message_length", 4096),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", 1024),
    # For TLS and the first frames of HTTP/2; gRPC's own bound is two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),
    # Nodes ping once a second.
    ("grpc.http2.min_ping_interval_without_data_ms", 200),
    ("grpc.http2.max_ping_strikes", 5),
)
"""What bounds those who fetch from this node."""

_NOT_BELIEVED = re.compile(r"CERTIFICATE_VERIFY_FAILED|Hostname Verification")
"""What gRPC's core says when a server's certificate is not believed, or is of another role."""

# The object that ends a stream; the type stubs do not know it.
EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]

Out = TypeVar("Out", bound=Message)
In = TypeVar("In", bound=Message)


def channel(address: str, own: Material | None = None, role: Role = Role.CONTROLPLANE) -> grpc.aio.Channel:
    """The way to a server that has to have this role. `own`: what this node is known by; None: without TLS."""
    if own is None:
        return grpc.aio.insecure_channel(address, options=(*OPTIONS, pushback.OPTION))
    options = (*OPTIONS, pushback.OPTION, *credentials.channel_options(role))
    return grpc.aio.secure_channel(address, credentials.channel(own), options=options)


def server() -> grpc.aio.Server:
    """What other nodes call; it does not listen yet."""
    return grpc.aio.server(interceptors=[Refusals()], options=[*OPTIONS, *_SERVED])


def listen(target: grpc.aio.Server, address: str, port: int, shown: grpc.ServerCredentials | None = None) -> int:
    """The port that the server will answer on; 0 when that one cannot be had. `shown`: None is without TLS."""
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        return target.add_insecure_port(place) if shown is None else target.add_secure_port(place, shown)
    except RuntimeError:
        return 0


class CallLink(Link[Out, In]):
    """One bidirectional call as a link.

    gRPC cancels the whole call when a read is cancelled, so a read goes on behind the back of whoever waits for it,
    and the next `receive` gets what it brought. It also ends a call that is given a second message while it takes the
    first, so senders wait for each other.
    """

    def __init__(self, call: "grpc.aio.StreamStreamCall[Out, In]", peer: str, *, linger_s: float) -> None:
        self._call = call
        self._ending = Ending(call)
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
            raise LinkLost(await self._why()) from error
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
        code, details = await self._ending.status()
        return f"{self._peer}: {_plain(details) or code.name}"


class Server:
    """The control plane, as a Connector and a Source; `node_id` says who fetches. `own`: what this node is known by;
    None: without TLS.
    """

    def __init__(self, node_id: str, own: Material | None = None) -> None:
        self._node_id = node_id
        self.own = own
        self._used = own
        self._channels: list[grpc.aio.Channel] = []
        """The session's, and then one for each certificate since."""
        self._address = ""

    def shown(self) -> grpc.ServerCredentials | None:
        """What whoever calls this node is shown; it follows when the certificate is renewed. None: without TLS."""
        own = self.own
        return credentials.server(lambda: self.own or own) if own is not None else None

    async def connect(self, address: str) -> Link[dpb.AgentMessage, dpb.LeaderMessage]:
        if address != self._address or len(self._channels) != 1 or self._used is not self.own:
            await self.close()
            self._channels, self._address, self._used = [channel(address, self.own)], address, self.own
        await self._ready(address)
        call = rpc.DispatcherStub(self._channels[0]).Session()  # type: ignore[call-arg]  # the stubs want an iterator
        return CallLink(call, address, linger_s=SESSION_LINGER_S)

    async def _ready(self, address: str) -> None:
        """Waits until the server answers, for as long as whoever calls likes. Raises LinkLost when it refuses to."""
        way = self._channels[0]
        while (state := way.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return  # a call on it is told why, which this way does not say
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                raise LinkLost(f"{address}: the connection was closed for another")
            await way.wait_for_state_change(state)

    async def open_stream(self) -> Link[dpb.StreamFrame, dpb.StreamFrame]:
        if not self._channels:
            raise LinkLost("there is no connection to the control plane")
        call = rpc.DispatcherStub(self._newest()).Stream()  # type: ignore[call-arg]
        return CallLink(call, self._address, linger_s=STREAM_LINGER_S)

    async def renew(self, request: tpb.RenewRequest) -> tpb.RenewResponse:
        """Another certificate, from the server of the session. Raises Temporary."""
        try:
            with _unless_closed("another certificate"):
                return await trust_rpc.TrustStub(self._newest()).Renew(request, timeout=RENEW_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Temporary(_words(self._address, error), reason="NoControlPlane") from error

    async def confirm(self) -> None:
        """Says that the certificate has come which this node has now. Raises Temporary."""
        try:
            with _unless_closed("that a certificate has come"):
                await trust_rpc.TrustStub(self._newest()).Confirm(tpb.ConfirmRequest(), timeout=UNARY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Temporary(_words(self._address, error), reason="NoControlPlane") from error

    async def may_read(self, certificate: str) -> str:
        """Why its holder may not read how this node is; empty: they may. Raises Temporary."""
        request = tpb.MayReadRequest(certificate=certificate)
        try:
            with _unless_closed("whether somebody may read"):
                said = await trust_rpc.TrustStub(self._newest()).MayRead(request, timeout=UNARY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise Temporary(_words(self._address, error), reason="NoControlPlane") from error
        return said.refusal

    async def close(self) -> None:
        """Close the channels; what runs over them is lost."""
        closing, self._channels = self._channels, []
        for one in closing:
            await one.close(None)

    async def resolve(self, reference: str) -> str:
        try:
            request = dpb.ResolveImageRequest(reference=reference)
            with _unless_closed(f"image {reference}"):
                found = await self._stub().ResolveImage(request, timeout=UNARY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, reference) from error
        return found.digest

    async def find(self, digest: str, failed: Sequence[str]) -> dpb.FindBlobResponse:
        request = dpb.FindBlobRequest(digest=digest, node_id=self._node_id, failed=failed[-MAX_FAILED:])
        try:
            with _unless_closed(f"blob {digest}"):
                found: dpb.FindBlobResponse = await self._stub().FindBlob(request, timeout=FIND_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, digest) from error
        return found

    async def may_fetch(self, node_id: str, digest: str) -> str:
        """Why a node may not have a blob; empty: it may. Raises Temporary."""
        request = dpb.MayFetchRequest(node_id=node_id, digest=digest)
        try:
            with _unless_closed(f"whether {node_id} may have the blob {digest}"):
                said = await self._stub().MayFetch(request, timeout=UNARY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return ""  # a control plane of 0.2, with which all members may
            raise Temporary(_words(self._address, error), reason="NoControlPlane") from error
        return said.refusal

    async def fetch(self, digest: str, offset: int, address: str = "") -> AsyncIterator[bytes]:
        if address:
            async with channel(address, self.own, Role.NODE) as node:
                try:
                    async for chunk in _fetch(node, digest, offset):
                        yield chunk
                except grpc.aio.AioRpcError as error:
                    why = _words(address, error, _STRANGE_NODE)
                    raise Temporary(f"blob {digest}: {why}", reason=_failing(error)) from error
            return
        try:
            async with contextlib.aclosing(_fetch(self._newest(), digest, offset)) as parts:
                while (part := await self._next_of(parts, digest)) is not None:
                    yield part
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, digest) from error

    async def _next_of(self, parts: AsyncIterator[bytes], digest: str) -> bytes | None:
        with _unless_closed(f"blob {digest}"):
            return await anext(parts, None)

    def _stub(self) -> "rpc.DispatcherAsyncStub":
        return rpc.DispatcherStub(self._newest())

    def _newest(self) -> grpc.aio.Channel:
        """The channel for what begins now: a certificate that was replaced is believed for what is open only."""
        if not self._channels:
            raise Temporary("there is no connection to the control plane", reason="NoControlPlane")
        if self._used is not self.own:
            self._channels.append(channel(self._address, self.own))
            self._used = self.own
        return self._channels[-1]

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


async def _fetch(way: grpc.aio.Channel, digest: str, offset: int) -> AsyncGenerator[bytes, None]:
    request = dpb.FetchBlobRequest(digest=digest, offset=offset)
    async for part in rpc.BlobsStub(way).Fetch(request, timeout=BLOB_TIMEOUT_S):
        yield part.chunk


@contextlib.contextmanager
def _unless_closed(what: str) -> Iterator[None]:
    """Raises Temporary when the channel is closed under a call, since the session has gone to another server.

    gRPC then cancels the call, and whoever waits for it is told so as if somebody had cancelled *them*.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        text = f"{what}: the connection to the control plane was closed for another"
        raise Temporary(text, reason="NoControlPlane") from error


def _failing(error: grpc.aio.AioRpcError) -> str:
    reasons = {grpc.StatusCode.RESOURCE_EXHAUSTED: BUSY, grpc.StatusCode.NOT_FOUND: LACKING}
    return reasons.get(error.code(), FAILED)


_STRANGE_SERVER = "it is no control plane of the cluster that this node has joined; are --server and the clock right?"
_STRANGE_NODE = "it is no node of the cluster that this node has joined"


def _words(peer: str, error: grpc.aio.AioRpcError, strange: str = _STRANGE_SERVER) -> str:
    return f"{peer}: {_plain(error.details(), strange) or error.code().name}"


def _plain(details: str | None, strange: str = _STRANGE_SERVER) -> str:
    """What gRPC's core says of a handshake that failed, as whoever has to mend it needs it."""
    return strange if _NOT_BELIEVED.search(details or "") else details or ""

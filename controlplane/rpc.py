"""The one place where the control plane's gRPC servers and channels are built: keepalive, sizes, TLS, and the bounds
that gRPC's core keeps by itself.

The rule: whoever serves or calls something gets its server or channel from here, so that how a connection is secured
and watched is said once.
"""

from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from protos.answering import Interceptor
from trust import credentials
from trust.core.identity import Role
from trust.folder import Material

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""The largest message that is taken in: an apply of 128 large objects, a chunk of 1 MiB, a batch of statuses."""

LONGEST_HANDSHAKE_MS = 10_000
"""For TLS and the first frames of HTTP/2; gRPC's own bound is two minutes."""
LONGEST_IDLE_MS = 300_000
"""How long a connection may be there without a call. An agent always has one, and others dial again."""
MAX_CONNECTIONS = 16_384
"""From everywhere. Beyond it a connection is closed at once."""
MAX_CONCURRENT = 512
"""Calls on one connection: those of an agent with 128 streams that fetches images. More wait at their client."""

_WATCHED = (
    # A silent agent is noticed within 1 s + 2 s by gRPC's C core, at no cost to Python.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # Without this a ping gets a minute for its answer, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # A list of a large cluster's tasks is one message; the reader decides what is too much.
    ("grpc.max_send_message_length", -1),
)
_SERVER = (
    *_WATCHED,
    # Agents ping every second, too; by default the server would call that abuse and hang up. Here it is abuse to ping
    # more than five times a second, which neither a busy machine makes of theirs.
    ("grpc.http2.min_ping_interval_without_data_ms", 200),
    ("grpc.http2.max_ping_strikes", 5),
    ("grpc.server_handshake_timeout_ms", LONGEST_HANDSHAKE_MS),
    ("grpc.max_connection_idle_ms", LONGEST_IDLE_MS),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT),
    # Two instances on one port would each get half of the calls.
    ("grpc.so_reuseport", 0),
)


class CannotListen(Exception):  # noqa: N818 - named after what happened
    """An address cannot be listened on."""


def server(interceptors: Sequence[Interceptor] = ()) -> grpc.aio.Server:
    """A server that nothing has been added to and that does not listen yet."""
    return grpc.aio.server(interceptors=interceptors, options=_SERVER)


def channel(address: str, role: Role, own: Material | None = None) -> grpc.aio.Channel:
    """The way to another instance, or to a node's blobs. `own`: what this instance is known by; None: without TLS."""
    options = (*_WATCHED, ("grpc.enable_http_proxy", 0))
    if own is None:
        return grpc.aio.insecure_channel(address, options=options)
    asked = (*options, *credentials.channel_options(role))
    return grpc.aio.secure_channel(address, credentials.channel(own), options=asked)


def listen(
    target: grpc.aio.Server,
    addresses: Sequence[str],
    shown: Callable[[], grpc.ServerCredentials] | None = None,
) -> tuple[int, ...]:
    """The ports that the server will answer on, in the order of `addresses` (`host:port`; port 0: any free one).

    `shown` makes the credentials of one address; None: without TLS.
    """
    # Those that follow a certificate's renewal can be used for one address: the core takes what they begin with once.
    return tuple(_listen(target, address, shown() if shown is not None else None) for address in addresses)


def _listen(target: grpc.aio.Server, address: str, shown: grpc.ServerCredentials | None) -> int:
    try:
        port = target.add_insecure_port(address) if shown is None else target.add_secure_port(address, shown)
    except RuntimeError as error:
        port, reason = 0, f" ({error})"
    else:
        reason = ""
    if port == 0:
        raise CannotListen(f"cannot listen on {address}: in use, or not an address of this machine{reason}")
    return port

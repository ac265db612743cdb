"""The connection to a control plane. The one place where `orchctl` builds channels, and secures them.

Inside `connect(...)` every failed call becomes an error of ours: `Unreachable` when nobody answered, else what the
server said in its `Error` message. Each says who makes it (`caller`), and none waits in silence (`patience`).
"""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from orchctl import caller, errors, patience, servers, who
from protos import headers, pushback
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import control_pb2_grpc
from trust import credentials

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlAsyncStub, ControlStub

T = TypeVar("T")

CALL_TIMEOUT_S = 15.0
"""The bound of a call that answers at once."""
APPLY_TIMEOUT_S = 60.0
"""The bound of a call that checks and writes many objects."""
TRANSFER_TIMEOUT_S = 6 * 3600.0
"""The bound of a call that sends an archive or a layer; that it goes on is watched by the server."""

_VERIFIED = re.compile(r"CERTIFICATE_VERIFY_FAILED|Hostname Verification")
"""What gRPC's core says when a server's certificate is not believed."""

_HANDSHAKE = re.compile(r"TSI_|andshake")
"""What it says when a handshake fails otherwise."""

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    pushback.OPTION,
    # A proxy that the environment names is for the web, not for the cluster.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    # An address that swallows packets is given up after 5 s instead of 20.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A server that vanished without a word is noticed while a stream is quiet. Servers permit a ping every second.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The core times an unanswered ping by this one; without it a dead link is never noticed.
    ("grpc.http2.ping_timeout_ms", 5_000),
)


@contextlib.contextmanager
def translated(server: str) -> Iterator[None]:
    """Failed calls become errors of ours."""
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error, server) from error


@contextlib.contextmanager
def connect(server: str, *, impatient: bool = True) -> Iterator["ControlStub"]:
    """The server's `Control` service, for blocking calls. Impatient: it is said when an answer is long in coming."""
    with dialed(server, impatient=impatient) as channel:
        yield control_pb2_grpc.ControlStub(channel)


@contextlib.contextmanager
def dialed(server: str, *, impatient: bool = True) -> Iterator[grpc.Channel]:
    """The way to any of the server's services, for blocking calls."""
    with _blocking(server) as channel, translated(server):
        watchers = (patience.Impatient(server),) if impatient else ()
        yield grpc.intercept_channel(channel, caller.Introduced(), *watchers)


@contextlib.asynccontextmanager
async def connect_async(server: str) -> AsyncIterator["ControlAsyncStub"]:
    """The server's `Control` service, for streams in both directions and for waiting on several things at once."""
    async with _asynchronous(server) as channel:
        with translated(server):
            yield control_pb2_grpc.ControlStub(channel)


def _blocking(server: str) -> grpc.Channel:
    if is_socket(server):
        return grpc.insecure_channel(server, options=_OPTIONS)
    return grpc.secure_channel(
        servers.target(server), _credentials(), options=(*_OPTIONS, *credentials.CHANNEL_OPTIONS)
    )


def _asynchronous(server: str) -> grpc.aio.Channel:
    if is_socket(server):
        return grpc.aio.insecure_channel(server, options=_OPTIONS)
    return grpc.aio.secure_channel(
        servers.target(server), _credentials(), options=(*_OPTIONS, *credentials.CHANNEL_OPTIONS)
    )


def is_socket(server: str) -> bool:
    """Whether it is a socket of this machine, the one thing that is spoken to in the clear."""
    return server.startswith("unix:")


def _credentials() -> grpc.ChannelCredentials:
    """Whoever has none speaks TLS all the same, and is told who they are not."""
    own = who.material()
    return credentials.channel(own) if own is not None else grpc.ssl_channel_credentials()


def at_leader(server: str, run: Callable[[str], T]) -> T:
    """Runs against the server; once more against the leader when only that one can do it."""
    try:
        return run(server)
    except errors.Refused as error:
        if not error.leader or error.leader == server:
            raise
        leader = error.leader
    return run(leader)


def near_leader(server: str, run: Callable[[str], T]) -> T:
    """Runs against the leader, which knows more than what is stored; against the server when it cannot be reached."""
    leader = leader_of(server)
    if leader != server:
        with contextlib.suppress(errors.Unreachable):
            return run(leader)
    return run(server)


def leader_of(server: str) -> str:
    """The leader's address, for what cannot be asked twice; the server's own while it leads or knows no leader."""
    with connect(server) as stub:
        answer = stub.Version(control.VersionRequest(), timeout=CALL_TIMEOUT_S)
    return server if answer.leader == answer.instance else answer.leader_address or server


def translate(error: grpc.RpcError, server: str) -> errors.OrchctlError:
    """What to tell about a call that failed."""
    said = _said(error)
    code = error.code()
    if said is not None:
        return _refusal(code, said)
    if code == grpc.StatusCode.UNAVAILABLE and _VERIFIED.search(error.details() or "") and not who.is_known():
        return errors.Unreachable(f"there is no certificate here for the control plane at {server}", hint=who.LOGIN)
    if code == grpc.StatusCode.UNAVAILABLE and _VERIFIED.search(error.details() or ""):
        return errors.Unreachable(
            f"the control plane at {server} is not of the cluster that this context is logged in to",
            hint="choose another context with --context, or `orchctl login` to that cluster",
        )
    if code == grpc.StatusCode.UNAVAILABLE:
        return _unreachable(server, _cause(error.details() or ""))
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return _unreachable(server, "it did not answer in time")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        hint = "are both of one version? see `orchctl version`"
        return errors.Refused(f"the control plane at {server} does not know this call", hint=hint)
    if code == grpc.StatusCode.NOT_FOUND:
        return errors.NotFound(error.details() or "not found")
    return errors.Refused(error.details() or f"the control plane at {server} answered {code.name}")


def _unreachable(server: str, why: str) -> errors.Unreachable:
    return errors.Unreachable(
        f"cannot reach the control plane at {server}: {why}",
        hint="does it run (`orchctl cluster status`)? choose another with --server or --context",
    )


def _refusal(code: grpc.StatusCode, said: control.Error) -> errors.OrchctlError:
    lines = (": ".join(filter(None, (field.object, field.path, field.message))) for field in said.fields)
    details = tuple(line for line in lines if line != said.message)  # a single mistake is the message already
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return errors.InvalidInput(said.message, hint=said.hint, details=details)
    kinds = {
        grpc.StatusCode.NOT_FOUND: errors.NotFound,
        grpc.StatusCode.ABORTED: errors.Outdated,
        grpc.StatusCode.UNAVAILABLE: errors.StoreSilent,
    }
    return kinds.get(code, errors.Refused)(said.message, hint=said.hint, details=details, leader=said.leader)


def _said(error: grpc.RpcError) -> control.Error | None:
    # Pairs, whatever the stubs say: the blocking and the asynchronous API have types of their own for them.
    metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    value = next((value for key, value in metadata if key == headers.ERROR), None)
    if not isinstance(value, bytes):
        return None
    try:
        return control.Error.FromString(value)
    except DecodeError:
        return None


def _cause(details: str) -> str:
    """gRPC's account of a failed connection ends in the system's own words: `connect: Connection refused (111)`."""
    if re.search(r"DNS resolution failed|Domain name not found", details):
        return "the host name is not known"
    if _HANDSHAKE.search(details):
        return "what answers there does not speak TLS as control planes do"
    last = details.rpartition(": ")[2].strip()
    return re.sub(r" \(\d+\)$", "", last) or "it does not answer"

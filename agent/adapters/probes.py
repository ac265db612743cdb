"""Asks a container by HTTP, TCP, gRPC or a command in it.

Two rules: an answer is good or says in a few words what was wrong, and takes no longer than its probe allows; and only
a command takes a process, everything else is a connection from this node to the task's address.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache

import grpc.aio
from google.protobuf import wrappers_pb2

from agent import ports
from agent.core import probes
from agent.core.probes import Answer, Target
from agent.errors import AgentError
from protos import families, units
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import objects_pb2 as pb

LONGEST_LINE = 8 * 1024
MOST_LINES = 200
LONGEST_MESSAGE = 200
OUTPUT_BYTES = 1024
LAST_WORDS_S = 0.1
"""How long what a command has started may hold its output open after its end."""

SERVING = 1
_SERVING_STATUS = {0: "UNKNOWN", SERVING: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_GRPC_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
"""Not by a proxy, and not over a connection that an earlier probe has failed to make and that waits before the next."""
_GIVE_UP_CONNECTING = "grpc.min_reconnect_backoff_ms"
"""The library would hold a connection on which no HTTP/2 begins for 20 s, although nobody waits for it any more."""

GOOD = Answer(good=True)


class NodeProber:
    """A Prober over the node's network and its runtime."""

    def __init__(self, runtime: ports.Runtime) -> None:
        self._runtime = runtime

    async def ask(self, target: Target, probe: pb.Probe) -> Answer:
        try:
            async with asyncio.timeout(probe.timeout / 1000):
                return await self._ask(target, probe)
        except TimeoutError:
            return _bad(f"no answer within {units.format_duration(probe.timeout)}")
        except OSError as error:
            return _bad(_words(error))
        except AgentError as error:
            return _bad(error.message)

    async def _ask(self, target: Target, probe: pb.Probe) -> Answer:
        if probe.HasField("exec"):
            return await _run(self._runtime, target.container_id, probe.exec)
        one = probe.http if probe.HasField("http") else probe.tcp if probe.HasField("tcp") else probe.grpc
        port = probes.port_number(target.container, one.port)
        if port is None:
            return _bad(f"the container has no port {one.port!r}")
        if isinstance(one, pb.HttpProbe):
            return await _get(target.address, port, one)
        if isinstance(one, pb.GrpcProbe):
            return await _check(target.address, port, one, timeout_ms=probe.timeout)
        return await _connect(target.address, port)


# TCP ------------------------------------------------------------------------------------------------------------------


async def _connect(address: str, port: int) -> Answer:
    """Without a transport: that would cost more than the connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        code = connection.connect_ex((address, port))
        if code == errno.EINPROGRESS:
            code = await _outcome(connection)
    return GOOD if code == 0 else _bad(_words(OSError(code, os.strerror(code))))


async def _outcome(connection: socket.socket) -> int:
    """What became of a connection that is being made, as an error number."""
    loop = asyncio.get_running_loop()
    known = asyncio.Event()
    loop.add_writer(connection, known.set)
    try:
        await known.wait()
    finally:
        loop.remove_writer(connection)
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# HTTP -----------------------------------------------------------------------------------------------------------------


async def _get(address: str, port: int, probe: pb.HttpProbe) -> Answer:
    """The status of a GET, from RFC 9112's first line; interim answers (1xx) are skipped, the body is not read."""
    headers = _headers(address, port, probe.headers)
    if broken := [name for name, value in headers.items() if not _is_one_line(name + value)]:
        return _bad(f"the header {broken[0]!r} cannot be sent: it holds a control character")
    reader, writer = await asyncio.open_connection(
        address, port, limit=LONGEST_LINE, ssl=_any_certificate() if probe.tls else None
    )
    try:
        lines = [f"GET {probe.path or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        return await _status(reader)
    except ValueError:
        return _bad("the answer is not HTTP")
    finally:
        writer.transport.abort()


async def _status(reader: asyncio.StreamReader) -> Answer:
    code = 0
    while code < 200:
        line = await reader.readline()
        if not line:
            return _bad("the connection was closed without an answer")
        version, _, rest = line.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            return _bad("the answer is not HTTP")
        code = int(rest[:3])
        await _skip_headers(reader)
    return GOOD if code < 400 else _bad(f"status {code}")


async def _skip_headers(reader: asyncio.StreamReader) -> None:
    """Raises ValueError when there are too many, or too long ones."""
    for _ in range(MOST_LINES):
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ValueError("cut off")
        if line in {b"\r\n", b"\n"}:
            return
    raise ValueError("too many headers")


def _headers(address: str, port: int, wanted: Mapping[str, str]) -> dict[str, str]:
    given = {
        "Host": f"{families.bracketed(address)}:{port}",
        "User-Agent": "orch-probe",
        "Accept": "*/*",
        "Connection": "close",
    }
    names = {name.title(): name for name in given}
    return {**given, **{names.get(name.title(), name): value for name, value in wanted.items()}}


def _is_one_line(text: str) -> bool:
    return all(character >= " " and character != "\x7f" for character in text)


@cache
def _any_certificate() -> ssl.SSLContext:
    """Whoever answers at the task's address is the task: a certificate would not tell more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# gRPC -----------------------------------------------------------------------------------------------------------------


async def _check(address: str, port: int, probe: pb.GrpcProbe, *, timeout_ms: int) -> Answer:
    """`Check` of the health checking protocol. Its messages have one field, number 1: a string, and an enumeration;
    on the wire they are the wrappers of those.
    """
    options = (*_GRPC_OPTIONS, (_GIVE_UP_CONNECTING, timeout_ms))
    async with grpc.aio.insecure_channel(f"{families.bracketed(address)}:{port}", options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=wrappers_pb2.StringValue.SerializeToString,
            response_deserializer=wrappers_pb2.Int32Value.FromString,
        )
        try:
            status = (await check(wrappers_pb2.StringValue(value=probe.service))).value
        except grpc.aio.AioRpcError as error:
            return _bad(_why_no_health(error, probe.service))
    return GOOD if status == SERVING else _bad(_SERVING_STATUS.get(status, f"status {status}"))


def _why_no_health(error: grpc.aio.AioRpcError, service: str) -> str:
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED:
            return "the server has no health service"
        case grpc.StatusCode.NOT_FOUND:
            return f"the server knows no service {service!r}"
        case grpc.StatusCode.UNAVAILABLE if "refused" in details.lower():
            return "connection refused"
        case code:
            return f"{code.name}: {details}"


# A command ------------------------------------------------------------------------------------------------------------


async def _run(runtime: ports.Runtime, container_id: str, probe: pb.ExecProbe) -> Answer:
    command = await runtime.execute(container_id, cpb.ExecStart(command=probe.command))
    try:
        said = bytearray()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_keep_beginning(command.output(), said))
            code = await command.exit_code()
            await asyncio.wait([reading], timeout=LAST_WORDS_S)
            reading.cancel()
    finally:
        await command.close()
    words = said.decode(errors="replace").strip().partition("\n")[0]
    return GOOD if code == 0 else _bad(f"exit code {code}" + (f": {words}" if words else ""))


async def _keep_beginning(output: "AsyncIterator[tuple[cpb.LogStream.ValueType, bytes]]", kept: bytearray) -> None:
    """The rest of what a command writes is read, so that it can go on, and dropped."""
    async for _, data in output:
        kept += data[: OUTPUT_BYTES - len(kept)]


def _bad(message: str) -> Answer:
    return Answer(good=False, message=message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + "…")


def _words(error: OSError) -> str:
    """`connection refused`."""
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or error}".lower().replace("_", " ")
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]

"""The page that Prometheus reads: HTTPS with the cluster's certificates, one path, and nothing else to be had.

Its bounds are its rules: TLS 1.3 with a certificate of the cluster's root; who that is, is looked at at every request;
a request has 8 KiB at most and no body that is read; it is there within ten seconds; and 64 connections at a time, 32
of one address, which count from before their handshake on.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

import structlog

from protos import connections
from trust.folder import Folder, Material

PATH = "/metrics"
MAX_CONNECTIONS = 64
MAX_OF_ADDRESS = 32
"""Of IPv6, of one /64. Whoever begins handshakes without end keeps nobody out that comes from elsewhere."""
MAX_HEAD_BYTES = 8 * 1024
HANDSHAKE_S = 10.0
SHUTDOWN_S = 1.0
REQUEST_S = 10.0
ACCEPT_AGAIN_S = 1.0
BACKLOG = 100
IDLE_S = 120.0
"""Between two requests of a connection; Prometheus reads once a minute by default."""

Render = Callable[[str], Awaitable[tuple[str, bytes]]]
"""The content type and the page, for what a reader accepts."""

_log = structlog.get_logger()


class CannotServe(Exception):  # noqa: N818 - named after what happened
    """An address cannot be listened on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Who is let in. `folder` and `current`: the certificate that is shown, and the roots that are believed."""

    folder: Folder
    current: Callable[[], Material]
    refusal: Callable[[str], Awaitable[str]]
    """Why the holder of a certificate, as PEM, may not read; empty: they may."""


class _Request(NamedTuple):
    method: str
    path: str
    accept: str
    last: bool  # the connection ends behind it


class _Malformed(Exception):  # noqa: N818 - what it is
    """It is no HTTP."""


@contextlib.asynccontextmanager
async def serving(addresses: Sequence[tuple[str, int]], render: Render, guard: Guard) -> AsyncIterator[tuple[int, ...]]:
    """Serves inside the block; yields the ports. Raises CannotServe."""
    page = _Page(render, guard)
    async with contextlib.AsyncExitStack() as stack:
        yield tuple([await stack.enter_async_context(page.listening(*address)) for address in addresses])


class _Page:
    def __init__(self, render: Render, guard: Guard) -> None:
        self._render = render
        self._guard = guard
        self._secure = _following(guard)
        self._open: Counter[str] = Counter()
        """Connections, by where they come from."""

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Serves inside the block; yields the port. Raises CannotServe.

        Not by asyncio's server, which makes the buffers of a connection, some 512 KiB, before anybody can count it.
        """
        try:
            listeners = await _listeners(host, port)
        except OSError as error:
            why = error.strerror or str(error)
            raise CannotServe(f"metrics cannot be served at {host} port {port}: {why}; give another address") from error
        async with asyncio.TaskGroup() as group:
            accepting = [group.create_task(self._accept(one)) for one in listeners]
            yield listeners[0].getsockname()[1]
            for task in accepting:
                task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        """Takes connections until cancelled, which ends them, too; those that are too many are closed at once."""
        with listener:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        taken, peer = await asyncio.get_running_loop().sock_accept(listener)
                    except OSError as error:  # it went before it was taken, or there are no descriptors
                        _log.warning("a reader of metrics was not let in", why=error.strerror)
                        await asyncio.sleep(ACCEPT_AGAIN_S)
                        continue
                    where = connections.origin(peer[0])
                    if self._open[where] >= MAX_OF_ADDRESS or self._open.total() >= MAX_CONNECTIONS:
                        taken.close()
                    else:
                        self._open[where] += 1
                        group.create_task(self._connected(taken, where))

    async def _connected(self, taken: socket.socket, where: str) -> None:
        """One connection, from before its handshake until it has ended."""
        try:
            reader, writer = await self._shaken(taken)
            await self._serve(reader, writer)
            await self._closed(writer)
        except (OSError, TimeoutError) as error:
            _log.debug("a reader of metrics has gone", why=str(error))
        except Exception:  # noqa: BLE001 - what trips over one reader is no trouble of others, nor of the program
            _log.exception("a reader of metrics was not answered")
        finally:
            self._open -= Counter([where])  # which forgets who has none

    async def _closed(self, writer: asyncio.StreamWriter) -> None:
        """Waits until a connection has ended: until then it counts. Raises OSError or TimeoutError."""
        async with asyncio.timeout(REQUEST_S):  # TLS has a shorter bound of its own
            await writer.wait_closed()

    async def _shaken(self, taken: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Both ends of a connection once its handshake is done. Raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            taken,
            ssl=self._secure,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests one after the other, until it goes or says nothing for a while."""
        try:
            wait_s = REQUEST_S
            while (request := await _read(reader, wait_s)) is not None:
                await self._answer(request, writer)
                if request.last:
                    return
                wait_s = IDLE_S
        except _Malformed as error:
            await _write(writer, HTTPStatus.BAD_REQUEST, str(error), last=True)
        except (OSError, TimeoutError) as error:
            _log.debug("a reader of metrics has gone", why=str(error))
        finally:
            writer.close()

    async def _answer(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        refusal = await self._refusal(writer)
        if refusal:
            _log.warning("metrics are refused", peer=writer.get_extra_info("peername"), why=refusal)
            await _write(writer, HTTPStatus.FORBIDDEN, refusal, last=request.last)
        elif request.path != PATH:
            await _write(writer, HTTPStatus.NOT_FOUND, f"there is {PATH} here and nothing else", last=request.last)
        elif request.method not in {"GET", "HEAD"}:
            await _write(writer, HTTPStatus.METHOD_NOT_ALLOWED, f"GET {PATH}", last=request.last)
        else:
            kind, content = await self._render(request.accept)
            await _send(writer, HTTPStatus.OK, kind, content, request)

    async def _refusal(self, writer: asyncio.StreamWriter) -> str:
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = shown.getpeercert(binary_form=True)
        assert certificate is not None, "TLS asks for a certificate"
        return await self._guard.refusal(ssl.DER_cert_to_PEM_cert(certificate))


async def _listeners(host: str, port: int) -> Sequence[socket.socket]:
    """One for each address of a host. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as stack:
        made = []
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(BACKLOG)
            made.append(one)
        stack.pop_all()
    return made


def _following(guard: Guard) -> ssl.SSLContext:
    """A context whose every handshake has the certificate and the roots of that moment."""
    used = guard.current()
    newest = _context(guard.folder, used)

    def follow(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        nonlocal used, newest
        if (now := guard.current()) is not used:
            used, newest = now, _context(guard.folder, now)
        connection.context = newest

    first = _context(guard.folder, used)
    first.sni_callback = follow
    return first


def _context(folder: Folder, own: Material) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.num_tickets = 0  # who resumed a session would not be looked at again
    made.load_cert_chain(folder.identity)
    made.load_verify_locations(cadata=own.roots.decode())
    return made


async def _read(reader: asyncio.StreamReader, wait_s: float) -> _Request | None:
    """The next request's head; None when there is none. Raises _Malformed, TimeoutError or OSError."""
    try:
        async with asyncio.timeout(wait_s):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise _Malformed(f"a request has {MAX_HEAD_BYTES} bytes at most") from error
    return _parse(head)


def _parse(head: bytes) -> _Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    # What one reader takes for the end of a line, another may not (RFC 9112, 2.2); and the answer may repeat it.
    if any(sign < " " and sign != "\t" for line in (first, *lines) for sign in line):
        raise _Malformed("a request has no control characters but those that end its lines")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Malformed(f"this is no request of HTTP/1.1: {first[:80]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    has_body = fields.get("content-length", "0") != "0" or "transfer-encoding" in fields
    last = has_body or words[2] == "HTTP/1.0" or fields.get("connection", "").lower() == "close"
    return _Request(words[0], words[1].partition("?")[0], fields.get("accept", ""), last)


async def _write(writer: asyncio.StreamWriter, status: HTTPStatus, text: str, *, last: bool) -> None:
    request = _Request("GET", "", "", last)
    with contextlib.suppress(OSError):
        await _send(writer, status, "text/plain; charset=utf-8", f"{text}\n".encode(), request)


async def _send(writer: asyncio.StreamWriter, status: HTTPStatus, kind: str, content: bytes, request: _Request) -> None:
    ends = "Connection: close\r\n" if request.last else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{ends}"
    )
    writer.write(f"{head}\r\n".encode() + (content if request.method != "HEAD" else b""))
    async with asyncio.timeout(REQUEST_S):
        await writer.drain()

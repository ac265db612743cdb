"""Bytes that no honest caller sends to a node: frames of HTTP/2, other languages, and heads of HTTP/1.1; and the way to
send them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from trust.core.identity import SERVER_NAMES, Role

ANSWER_S: Final = 20.0
"""The machine may be busy."""
MOST_BYTES: Final = 8 * 1024
"""Of a request for the page."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LANGUAGES: Final = (
    b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n",
    PREFACE,
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x16\x03\x01\xff\xff",
    b"",
)
_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
"""Kinds of frames (RFC 9113, 6)."""
_END_STREAM, _END_HEADERS = 1, 4


# HTTP/2 ---------------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, body: bytes = b"", length: int | None = None) -> bytes:
    """One frame; `length`: what it says of its body, when that is a lie."""
    size = len(body) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def call(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """The header block of a call: literal fields without an index (RFC 7541, 6.2.2)."""
    fields = (
        *((b":method", b"POST"), (b":scheme", b"https"), (b":path", path), (b":authority", b"node.orch")),
        *((b"content-type", b"application/grpc"), (b"te", b"trailers"), *more),
    )
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


def hostile(dice: random.Random) -> bytes:
    """What a connection says, from its preface on; some of them never end what they begin."""
    begun = PREFACE + frame(_SETTINGS, 0, 0)
    fetch = frame(_HEADERS, _END_HEADERS, 1, call(b"/orch.v1.Blobs/Fetch"))
    match dice.randrange(10):
        case 0:  # anything
            return PREFACE[: dice.choice((3, 24))] + dice.randbytes(dice.choice((0, 10, 9_000)))
        case 1:  # frames of any kind, of any stream
            return begun + b"".join(_any(dice) for _ in range(dice.randint(1, 30)))
        case 2:  # a header block that does not end
            more = frame(_CONTINUATION, 0, 1, dice.randbytes(1_000)) * dice.choice((1, 200))
            return begun + frame(_HEADERS, 0, 1, call(b"/orch.v1.Blobs/Fetch")) + more
        case 3:  # a message that is longer, or shorter, than it says
            said = dice.choice((0, 1, 5, 4_095, 4_097, 2**31 - 1, 2**32 - 1))
            body = (
                bytes([dice.choice((0, 0, 1, 2, 255))]) + said.to_bytes(4, "big") + dice.randbytes(dice.choice((0, 4)))
            )
            return begun + fetch + frame(_DATA, dice.choice((0, _END_STREAM)), 1, body)
        case 4:  # streams that are begun and taken back at once
            streams = range(1, 2 * dice.choice((20, 400)), 2)
            block = call(b"/orch.v1.Blobs/Fetch")
            return begun + b"".join(
                frame(_HEADERS, _END_HEADERS, one, block) + frame(_RST, 0, one, b"\0\0\0\x08") for one in streams
            )
        case 5:  # more streams than there may be, none of which goes on
            block = call(b"/grpc.health.v1.Health/Watch")
            return begun + b"".join(frame(_HEADERS, _END_HEADERS, one, block) for one in range(1, 200, 2))
        case 6:  # pings, or settings, without end
            one = dice.choice((frame(_PING, 0, 0, b"12345678"), frame(_SETTINGS, 0, 0, b"\0\3\0\0\0\1")))
            return begun + one * 500
        case 7:  # fields that grow
            field = (b"x" * 100, b"y" * 120)
            return begun + frame(_HEADERS, _END_HEADERS, 1, call(b"/orch.v1.Blobs/Fetch", *[field] * 60))
        case 8:  # a deadline, an encoding and a method that nobody knows
            odd = dice.choice(
                (
                    *((b"grpc-timeout", b"-1S"), (b"grpc-timeout", b"99999999999H"), (b"grpc-encoding", b"../x")),
                    *((b"grpc-accept-encoding", b"\xff\xfe"), (b"content-length", b"-5"), (b"grpc-tags-bin", b"!!")),
                )
            )
            return begun + frame(_HEADERS, _END_HEADERS, 1, call(dice.choice((b"", b"/", b"*", b"/../..")), odd))
        case _:  # windows that overflow
            return begun + fetch + frame(_WINDOW, 0, dice.choice((0, 1)), b"\x7f\xff\xff\xff") * 3


def _any(dice: random.Random) -> bytes:
    body = dice.randbytes(dice.choice((0, 1, 4, 8, 100)))
    lie = dice.choice((None, None, None, 0, 2**24 - 1))
    return frame(dice.randrange(12), dice.randrange(256), dice.choice((0, 1, 2, 3, 2**31 - 1, 2**31)), body, lie)


# HTTP/1.1 -------------------------------------------------------------------------------------------------------------

_ACCEPTS = (
    *("*/*", "application/openmetrics-text;version=1.0.0", "application/openmetrics-text", "text/plain;version=1.0.0"),
    *("application/openmetrics-text;version=abc", "text/plain;version=x.y", "application/openmetrics-text;version="),
    *(
        "text/plain;version=1.0.0;escaping=../..",
        "application/openmetrics-text;version=9.z",
        ";;;===,,,",
        "text/plain;",
    ),
    *(
        "application/openmetrics-text;version=9\nSet-Cookie: a=b",
        "text/plain;version=9\rX: y",
        "text/plain;version=9\0",
    ),
    *("application/openmetrics-text;version=9;ß", "text/plain;version=" + "9" * 5_000, "text/plain;version=9\x1b[2J"),
)
_PATHS = (
    "/metrics",
    "/metrics",
    "/metrics?a=b",
    "/",
    "/../../etc/passwd",
    "//metrics",
    "*",
    "",
    "/%00",
    "/\x1b[2J",
    "/\n",
)


def request(dice: random.Random) -> bytes:
    """A head; seldom one that does not end, or no head at all."""
    kind = dice.randrange(12)
    if kind == 0:
        return dice.choice(LANGUAGES) + dice.randbytes(dice.choice((1, 100, 20_000)))
    if kind == 1:
        return b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * dice.choice((1, 5_000))
    method = dice.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "get", "", "\0", "G" * 3_000))
    version = dice.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.", "HTTP/2", "\xff"))
    fields = [f"Accept: {dice.choice(_ACCEPTS)}"]
    if kind == 2:
        fields += dice.sample(("Content-Length: -1", "Transfer-Encoding: chunked", ":", "", "x", " y", "Host: \x80"), 3)
    head = "\r\n".join([f"{method} {dice.choice(_PATHS)} {version}", *fields, "", ""])
    return head.encode("latin-1") * dice.choice((1, 1, 1, 3))


# Sending --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Of the page. `fields`: the lines of its head."""

    status: int
    fields: Sequence[str]
    text: str


@contextlib.asynccontextmanager
async def _connected(
    host: str, port: int, secure: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    name = SERVER_NAMES[Role.NODE] if secure is not None else None
    reader, writer = await asyncio.open_connection(host, port, ssl=secure, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(host: str, port: int, data: bytes, secure: ssl.SSLContext | None, *, wait_s: float) -> bool:
    """Sends and reads for a while; whether it was hung up on."""
    try:
        async with _connected(host, port, secure) as (reader, writer), asyncio.timeout(wait_s):
            writer.write(data)
            while await reader.read(65_536):
                continue
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


async def answer(host: str, port: int, head: bytes, secure: ssl.SSLContext, *, wait_s: float) -> Answer | None:
    """The first answer of the page; None: it has hung up, or, with nothing to wait for, it was left."""
    try:
        async with _connected(host, port, secure) as (reader, writer):
            writer.write(head)
            if not wait_s:
                return None
            async with asyncio.timeout(wait_s):
                said = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                size = int(re.findall(r"Content-Length: (\d+)", said)[0]) if not head.startswith(b"HEAD") else 0
                text = (await reader.readexactly(size)).decode()
    except (OSError, asyncio.IncompleteReadError):
        return None
    return Answer(status=int(said.split()[1]), fields=said.removesuffix("\r\n\r\n").split("\r\n"), text=text)

"""Messages between agent, launcher and monitor: JSON objects over SOCK_SEQPACKET, descriptors beside them.

Two rules: one message is one packet, and every size has a bound. A body that does not fit into a packet travels in a
memory file whose descriptor comes first. `send` and `receive` work on blocking sockets, and on non-blocking ones,
where they raise BlockingIOError; so an asyncio program calls them from `loop.add_reader`.

    packet = b"J" + body                      body in the packet
           | b"M" + b""  with [memfd, …]      body in the first descriptor
    body   = JSON | JSON + NUL + JSON         the second is the field "config", which the receiver has as a text, too

    request = {"id": n, "verb": "…", …}
    reply   = {"id": n, "ok": {…}} | {"id": n, "error": {"type", "message", "step", "errno"}}
    event   = {"event": "…", …}               from a monitor, to everybody who is connected
"""

import array
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from runtime import errors
from runtime.values import frozen

MAX_PACKET_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_DESCRIPTORS: Final = 128

_INLINE: Final = b"J"
_MEMORY_FILE: Final = b"M"
_BETWEEN: Final = b"\0"
_CONFIG: Final = "config"
_SPACE: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
_TRUNCATED: Final = socket.MSG_TRUNC | socket.MSG_CTRUNC


@frozen
class Message:
    """What arrived: the object, and descriptors that now belong to the receiver (close-on-exec)."""

    body: dict[str, Any]
    fds: tuple[int, ...] = ()
    config: bytes = b""  # the text of the body's field of this name

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


def encode(body: dict[str, Any]) -> bytes:
    """The text of a message, checked against the bound."""
    text = _json({name: value for name, value in body.items() if name != _CONFIG})
    if _CONFIG in body:
        text += _BETWEEN + _json(body[_CONFIG])
    if len(text) > MAX_BODY_BYTES:
        raise errors.ProtocolError(f"message of {len(text)} bytes; {MAX_BODY_BYTES} are the most")
    return text


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def decode(text: bytes) -> dict[str, Any]:
    """The object that a message's text says."""
    return _decode(text)[0]


def _decode(text: bytes) -> tuple[dict[str, Any], bytes]:
    """Likewise, and the configuration's own text."""
    rest, between, config = text.partition(_BETWEEN)
    try:
        body = json.loads(rest)
        if between:
            body = {**body, _CONFIG: json.loads(config)}
    except (ValueError, TypeError) as error:
        raise errors.ProtocolError(f"message is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise errors.ProtocolError(f"message must be a JSON object, not {type(body).__name__}")
    return body, config


def send(to: socket.SocketType, body: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay the sender's."""
    if len(fds) >= MAX_DESCRIPTORS:
        raise errors.ProtocolError(f"{len(fds)} descriptors in one message; {MAX_DESCRIPTORS - 1} are the most")
    text = encode(body)
    if len(text) < MAX_PACKET_BYTES:
        send_packet(to, _INLINE + text, fds)
        return
    spilled = _memory_file(text)
    try:
        send_packet(to, _MEMORY_FILE, [spilled, *fds])
    finally:
        os.close(spilled)


def send_packet(to: socket.SocketType, packet: bytes, fds: Sequence[int]) -> None:
    """Send a packet as it is."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        to.sendmsg([packet], rights, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise errors.PeerGone(f"the other end has closed the connection: {error.strerror}") from None


def receive(source: socket.SocketType) -> Message | None:
    """The next message, or None at the end of the connection."""
    packet, fds = receive_packet(source)
    return message(packet, fds) if packet else None


def receive_packet(source: socket.SocketType) -> tuple[bytes, list[int]]:
    """The next packet as it is, and its descriptors; empty at the end of the connection."""
    try:
        packet, ancillary, flags, _ = source.recvmsg(MAX_PACKET_BYTES, _SPACE, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The other end closed without reading all that we had sent. The kernel says so once, and before it hands
        # out what the other end had sent.
        try:
            packet, ancillary, flags, _ = source.recvmsg(MAX_PACKET_BYTES, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b"", []
    fds = _descriptors(ancillary)
    if flags & _TRUNCATED:
        _close(fds)
        raise errors.ProtocolError(f"packet above {MAX_PACKET_BYTES} bytes or {MAX_DESCRIPTORS} descriptors")
    return packet, fds


def message(packet: bytes, fds: list[int]) -> Message:
    """What a packet says; closes the descriptors when it says nothing."""
    try:
        return _message(packet, fds)
    except BaseException:
        _close(fds)
        raise


def _close(fds: list[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _message(packet: bytes, fds: list[int]) -> Message:
    if packet[:1] == _INLINE:
        body, config = _decode(packet[1:])
        return Message(body=body, fds=tuple(fds), config=config)
    if packet != _MEMORY_FILE or not fds:
        raise errors.ProtocolError(f"packet of an unknown kind: {packet[:1]!r}")
    size = os.fstat(fds[0]).st_size
    if size > MAX_BODY_BYTES:
        raise errors.ProtocolError(f"message of {size} bytes; {MAX_BODY_BYTES} are the most")
    body, config = _decode(os.pread(fds[0], size, 0))
    os.close(fds.pop(0))
    return Message(body=body, fds=tuple(fds), config=config)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _memory_file(text: bytes) -> int:
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    view = memoryview(text)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def ok(request: int, **fields: Any) -> dict[str, Any]:
    """The reply to a request that was done."""
    return {"id": request, "ok": fields}


def failed(request: int, error: errors.ContainerError) -> dict[str, Any]:
    """The reply to a request that was not."""
    return {"id": request, "error": errors.to_wire(error)}


def result(reply: dict[str, Any]) -> dict[str, Any]:
    """What a reply holds; raises the error that it tells of."""
    if "error" in reply:
        raise errors.from_wire(reply["error"])
    fields = reply.get("ok")
    if not isinstance(fields, dict):
        raise errors.ProtocolError(f"reply without a result: {sorted(reply)}")
    return fields


def connect(path: str) -> socket.socket:
    """Connect to a socket file, however long its path: sun_path holds 108 bytes, a descriptor's path always fits."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


def listen(path: str) -> socket.socket:
    """Listen on a new socket file that only its owner can open."""
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
        os.close(folder)
    return listener


def accept(listener: socket.SocketType) -> socket.socket:
    """The next connection; raises OSError when there is none."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - the half of socket.accept that is C
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=fd)


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end of a Unix socket (SO_PEERCRED: pid, uid, gid)."""
    credentials = array.array("i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return credentials[1]

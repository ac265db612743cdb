"""D-Bus between two processes without a bus: what systemd's private socket needs, and no more.

The format is that of the D-Bus Specification ("Message Protocol"), in little endian. Values are Python's: numbers,
text, lists for arrays, tuples for structs, and `(signature, value)` for a variant.

One rule: whatever the other end sends is an answer or a ProtocolError, within TIMEOUT_S.
"""

import socket
import struct
from collections.abc import Iterator
from typing import Any, Final, Self

from runtime import errors
from runtime.values import frozen

TIMEOUT_S: Final = 25.0
"""For each answer, as other clients of D-Bus have it."""

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_TO, _SIGNATURE = 1, 2, 3, 4, 5, 8
_NUMBERS: Final = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_TEXTS: Final = "so"
_FIXED_HEADER_BYTES: Final = 16
_MAX_MESSAGE_BYTES: Final = 1 << 24
_MAX_LINE_BYTES: Final = 1024


@frozen
class Message:
    """What the other end says. `member` is a signal's name, or an error's."""

    kind: int
    reply_to: int
    member: str
    signature: str
    body: bytes

    def values(self) -> tuple[Any, ...]:
        """The body; raises ProtocolError."""
        reader = Reader(self.body)
        return tuple(reader.read(each) for each in complete_types(self.signature))


class Connection:
    """A peer that answers calls and sends signals. One thread; close it."""

    def __init__(self, path: str) -> None:
        self._serial = 0
        self._buffer = b""
        self._signals: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(TIMEOUT_S)
            self._socket.connect(path)
            self._authenticate()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _authenticate(self) -> None:
        """The kernel says who we are, so no name is sent; the server may ask for one all the same, hence DATA."""
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        while True:
            line = self._line()
            if line.startswith(b"OK"):
                return
            if line != b"DATA":
                raise errors.ProtocolError(f"D-Bus: this user is refused: {line.decode(errors='replace')}")

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer and len(self._buffer) < _MAX_LINE_BYTES:
            self._receive()
        line, found, self._buffer = self._buffer.partition(b"\r\n")
        if not found:
            raise errors.ProtocolError("D-Bus: the other end does not speak it")
        return line

    def call(self, path: str, interface: str, member: str, signature: str, *values: Any) -> Message:
        """Call a method; the return, or the error that came instead. Signals that come before it are kept."""
        self._serial += 1
        self._socket.sendall(encode_call(self._serial, path, interface, member, signature, values))
        while True:
            message = self._message()
            if message.kind == SIGNAL:
                self._signals.append(message)
            elif message.reply_to == self._serial:
                return message

    def signals(self) -> Iterator[Message]:
        """Those that came, and those that come; never ends by itself."""
        while True:
            while self._signals:
                yield self._signals.pop(0)
            message = self._message()
            if message.kind == SIGNAL:
                self._signals.append(message)

    def _message(self) -> Message:
        head = self._peek(_FIXED_HEADER_BYTES)
        if head[:1] != b"l":
            raise errors.ProtocolError("D-Bus: a message in another byte order")
        body_bytes, _, fields_bytes = struct.unpack_from("<III", head, 4)
        header_bytes = _aligned(_FIXED_HEADER_BYTES + fields_bytes, 8)
        if header_bytes + body_bytes > _MAX_MESSAGE_BYTES:
            raise errors.ProtocolError("D-Bus: a message that is too large")
        whole = self._peek(header_bytes + body_bytes)
        self._buffer = self._buffer[len(whole) :]
        # The array of fields is read with its length, which stands before it.
        fields = dict(Reader(whole[:header_bytes], start=12).read("a(yv)"))
        reply_to, member, error, signature = (
            fields.get(code, ("", default))[1]
            for code, default in ((_REPLY_TO, 0), (_MEMBER, ""), (_ERROR_NAME, ""), (_SIGNATURE, ""))
        )
        return Message(
            kind=whole[1], reply_to=reply_to, member=error or member, signature=signature, body=whole[header_bytes:]
        )

    def _peek(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        return self._buffer[:size]

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise errors.ProtocolError(f"D-Bus: nothing was heard for {TIMEOUT_S:.0f} s") from None
        if not data:
            raise errors.PeerGone("D-Bus: the other end hung up")
        self._buffer += data


def encode_call(serial: int, path: str, interface: str, member: str, signature: str, values: tuple[Any, ...]) -> bytes:
    """A method call."""
    body = Writer()
    for each, value in zip(complete_types(signature), values, strict=True):
        body.write(each, value)
    fields: list[tuple[int, tuple[str, Any]]] = [
        (_PATH, ("o", path)),
        (_INTERFACE, ("s", interface)),
        (_MEMBER, ("s", member)),
    ]
    if signature:
        fields.append((_SIGNATURE, ("g", signature)))
    head = Writer()
    for each, value in (("y", ord("l")), ("y", CALL), ("y", 0), ("y", 1), ("u", len(body.data)), ("u", serial)):
        head.write(each, value)
    head.write("a(yv)", fields)
    head.align(8)
    return bytes(head.data + body.data)


class Writer:
    """Values, one after another, each at a multiple of its alignment."""

    def __init__(self) -> None:
        self.data = bytearray()

    def align(self, size: int) -> None:
        """Fill up with zeros."""
        self.data += bytes(_aligned(len(self.data), size) - len(self.data))

    def write(self, kind: str, value: Any) -> None:
        """Append a value of one complete type."""
        self.align(_alignment(kind))
        if kind in _NUMBERS:
            self.data += struct.pack(f"<{_NUMBERS[kind]}", value)
        elif kind in _TEXTS:
            text = value.encode()
            self.data += struct.pack("<I", len(text)) + text + b"\0"
        elif kind == "g":
            self.data += bytes((len(value),)) + value.encode() + b"\0"
        elif kind == "v":
            signature, inner = value
            self.write("g", signature)
            self.write(signature, inner)
        elif kind[0] == "a":
            self._write_array(kind[1:], value)
        else:
            for each, item in zip(complete_types(kind[1:-1]), value, strict=True):
                self.write(each, item)

    def _write_array(self, kind: str, items: list[Any]) -> None:
        """Its length leaves out what aligns the first item."""
        place = len(self.data)
        self.data += bytes(4)
        self.align(_alignment(kind))
        start = len(self.data)
        for item in items:
            self.write(kind, item)
        struct.pack_into("<I", self.data, place, len(self.data) - start)


class Reader:
    """Values out of a message; raises ProtocolError for one that is cut short."""

    def __init__(self, data: bytes, *, start: int = 0) -> None:
        self._data = data
        self._at = start

    def read(self, kind: str) -> Any:
        """The next value, of one complete type."""
        self._at = _aligned(self._at, _alignment(kind))
        if kind in _NUMBERS:
            value = self._unpack(_NUMBERS[kind])
            return bool(value) if kind == "b" else value
        if kind in _TEXTS:
            return self._text(self._unpack("I"))
        if kind == "g":
            return self._text(self._unpack("B"))
        if kind == "v":
            signature = self.read("g")
            [inner] = complete_types(signature)
            return signature, self.read(inner)
        if kind[0] == "a":
            return self._read_array(kind[1:])
        return tuple([self.read(each) for each in complete_types(kind[1:-1])])

    def _read_array(self, kind: str) -> list[Any]:
        size = self._unpack("I")
        self._at = _aligned(self._at, _alignment(kind))
        end = self._at + size
        if end > len(self._data):
            raise errors.ProtocolError("D-Bus: an array that is cut short")
        items: list[Any] = []
        while self._at < end:
            items.append(self.read(kind))
        return items

    def _unpack(self, code: str) -> Any:
        try:
            [value] = struct.unpack_from(f"<{code}", self._data, self._at)
        except struct.error:
            raise errors.ProtocolError("D-Bus: a message that is cut short") from None
        self._at += struct.calcsize(f"<{code}")
        return value

    def _text(self, size: int) -> str:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise errors.ProtocolError("D-Bus: a text that is cut short")
        self._at += size + 1
        return data.decode(errors="replace")


def holds(kind: str, number: int) -> bool:
    """Whether a number fits into one of D-Bus's types."""
    try:
        struct.pack(f"<{_NUMBERS[kind]}", number)
    except struct.error:
        return False
    return True


def complete_types(signature: str) -> list[str]:
    """A signature's single complete types: "sa(sv)" has "s" and "a(sv)"; raises ProtocolError."""
    found, at = [], 0
    while at < len(signature):
        end = _end_of_type(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def _end_of_type(signature: str, at: int) -> int:
    first = signature[at : at + 1]
    if first == "a":
        return _end_of_type(signature, at + 1)
    if first in {"(", "{"}:
        close = ")" if first == "(" else "}"
        at += 1
        while signature[at : at + 1] != close:
            at = _end_of_type(signature, at)
        return at + 1
    if first and (first in _NUMBERS or first in "sogv"):
        return at + 1
    raise errors.ProtocolError(f"D-Bus: {signature!r} is no signature")


def _alignment(kind: str) -> int:
    if kind[0] in "({":
        return 8
    if kind in _NUMBERS:
        return struct.calcsize(_NUMBERS[kind])
    return 1 if kind in "gv" else 4


def _aligned(at: int, size: int) -> int:
    return -(-at // size) * size

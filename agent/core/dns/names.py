"""Domain names as they stand in packets (RFC 1035, 3.1): `web.orch` is b"\\x03web\\x04orch\\0".

One rule: names are compared in small letters. No length is a letter, so `name.lower()` does it for the whole name.
"""

import struct
from typing import Final

ROOT: Final = b"\0"
MAX_BYTES: Final = 255
MAX_LABEL_BYTES: Final = 63
_POINTER: Final = 0xC0
_SHORT: Final = struct.Struct("!H")


class MalformedError(Exception):
    """What was received is no packet as RFC 1035 has it."""


def from_text(text: str) -> bytes:
    """`web.orch` or `web.orch.`. Raises ValueError for what is no name."""
    labels = [label.encode("ascii") for label in text.rstrip(".").split(".")] if text.rstrip(".") else []
    return from_labels(labels)


def from_labels(labels: list[bytes]) -> bytes:
    """The labels from left to right. Raises ValueError when one of them, or all together, is too long."""
    if not all(0 < len(label) <= MAX_LABEL_BYTES for label in labels):
        raise ValueError(f"a label of {labels} is empty or longer than {MAX_LABEL_BYTES} bytes")
    name = b"".join(bytes((len(label),)) + label for label in labels) + ROOT
    if len(name) > MAX_BYTES:
        raise ValueError(f"the name {labels} is longer than {MAX_BYTES} bytes")
    return name


def to_text(name: bytes) -> str:
    """For people: whatever is no printable ASCII is escaped."""
    return ".".join(label.decode("ascii", errors="backslashreplace") for label in labels(name)) or "."


def labels(name: bytes) -> list[bytes]:
    """From left to right, without the root's."""
    found = []
    offset = 0
    while size := name[offset]:
        found.append(name[offset + 1 : offset + 1 + size])
        offset += 1 + size
    return found


def read_plain(packet: bytes, offset: int) -> int:
    """Where a name without pointers ends: a question's, before which there is nothing to point to."""
    start, most = offset, len(packet)
    while offset < most:
        size = packet[offset]
        if size > MAX_LABEL_BYTES:
            break
        offset += 1 + size
        if not size:
            if offset - start > MAX_BYTES:
                break
            return offset
    raise MalformedError("a name without an end")


def read(packet: bytes, offset: int) -> tuple[bytes, int]:
    """The name at an offset, its pointers followed, and where it ends.

    Every pointer must lead further back than the one before it, so there are no loops.
    """
    parts: list[bytes] = []
    total, end, barrier = 0, 0, offset
    while True:
        if offset >= len(packet):
            raise MalformedError("a name beyond the end of the packet")
        size = packet[offset]
        if size >= _POINTER:
            if offset + 2 > len(packet):
                raise MalformedError("half a pointer")
            end = end or offset + 2
            offset = _SHORT.unpack_from(packet, offset)[0] & 0x3FFF
            if offset >= barrier:
                raise MalformedError("a pointer that does not lead back")
            barrier = offset
            continue
        if size > MAX_LABEL_BYTES:
            raise MalformedError("a label of an unknown type")
        part = packet[offset : offset + 1 + size]
        parts.append(part)
        offset += 1 + size
        total += 1 + size
        if total > MAX_BYTES or len(part) != 1 + size:
            raise MalformedError("a name that is too long")
        if not size:
            return b"".join(parts), end or offset


class Writer:
    """A packet that grows. A name that was written before, or the end of one, becomes a pointer to there."""

    def __init__(self, start: bytes) -> None:
        self.data = bytearray(start)
        self._places: dict[bytes, int] = {}

    def name(self, name: bytes) -> None:
        """Write a name, as short as what stands before it allows."""
        rest, lower = name, name.lower()
        while len(rest) > 1:
            place = self._places.get(lower)
            if place is not None:
                self.data += _SHORT.pack(_POINTER << 8 | place)
                return
            if len(self.data) < 0x4000:  # a pointer has 14 bits
                self._places[lower] = len(self.data)
            size = 1 + rest[0]
            self.data += rest[:size]
            rest, lower = rest[size:], lower[size:]
        self.data += ROOT

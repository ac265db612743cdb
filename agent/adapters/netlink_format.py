"""The attributes of netlink messages: bytes with a type, one after the other.

attribute = length, type, bytes, padded to four
"""

import socket
import struct
from collections.abc import Iterator


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute."""
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each; the types without their flags."""
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + size]
        offset += size + -size % 4


def family_of(packed: bytes) -> int:
    """The family of an address, by its length."""
    return socket.AF_INET if len(packed) == 4 else socket.AF_INET6

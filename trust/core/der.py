"""Reads DER (ITU-T X.690): values with a tag, a length and a content, one after the other and in each other.

The rule: what does not fit exactly is refused. Nothing here is believed before TLS or a pin has vouched for it, and it
is bounded nevertheless.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from trust.core.identity import Malformed

INTEGER, SEQUENCE, SET, OID = 0x02, 0x30, 0x31, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
UTF8, PRINTABLE = 0x0C, 0x13
MAX_BYTES = 64 * 1024
MAX_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """`whole` is the value with its tag and length, as signatures and digests are made of it."""

    tag: int
    content: bytes
    whole: bytes

    def parts(self, tag: int = SEQUENCE) -> list["Value"]:
        """The values inside, if this one has the tag. Raises Malformed."""
        return list(values(expect(self, tag).content))


def values(data: bytes) -> Iterator[Value]:
    """The values in a row. Raises Malformed."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"{len(data)} bytes are too many for a certificate")
    start = 0
    while start < len(data):
        content, end = _bounds(data, start)
        yield Value(tag=data[start], content=data[content:end], whole=data[start:end])
        start = end


def one(data: bytes) -> Value:
    """The only value that there is. Raises Malformed."""
    found = list(values(data))
    if len(found) != 1:
        raise Malformed(f"{len(found)} values where one was expected")
    return found[0]


def expect(value: Value, tag: int) -> Value:
    """The value, if it has the tag. Raises Malformed."""
    if value.tag != tag:
        raise Malformed(f"a value of tag {value.tag:#x} where {tag:#x} was expected")
    return value


def _bounds(data: bytes, start: int) -> tuple[int, int]:
    """Where the content of the value at `start` begins and ends."""
    if start + 2 > len(data):
        raise Malformed("a value is cut off")
    first, content = data[start + 1], start + 2
    length = first
    if first >= 0x80:
        count = first & 0x7F
        if not 1 <= count <= MAX_LENGTH_BYTES:
            raise Malformed("a length that is not allowed in DER")
        length, content = int.from_bytes(data[content : content + count], "big"), content + count
    if content + length > len(data):
        raise Malformed("a value is cut off")
    return content, content + length

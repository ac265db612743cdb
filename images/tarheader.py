"""The fields of a tar header: pure decoding of bounded bytes (tar(5), pax(1), GNU tar's manual).

The rule: every function takes bytes and gives a value or raises `InvalidImage` with the place; none reads a stream on
its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BLOCK = 512
MAX_EXTENDED_BYTES = 1 << 20
MAX_SPARSE_SEGMENTS = 100_000
_MAX_NUMBER = 1 << 62
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")
_DECIMAL = re.compile(rb"-?[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{0,40}))?")
_XATTR_PREFIX = "SCHILY.xattr."
_ASCII = bytes(range(128))


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One 512-byte block; numbers decoded, names raw."""

    block: bytes
    type: bytes
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    device_major: int
    device_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseMap:
    """The size of a sparse file and the (offset, length) of each piece that has content."""

    size_bytes: int
    segments: tuple[tuple[int, int], ...]


def display(raw: bytes) -> str:
    """A hostile name, fit for one line of an error."""
    return repr(raw[:200].decode("utf-8", "backslashreplace")) + ("…" if len(raw) > 200 else "")


class Place:
    """What a complaint is about, put into words only when there is one: most entries are right."""

    __slots__ = ("_name", "_noun", "_what")

    def __init__(self, what: str, name: bytes, noun: str) -> None:
        self._what = what
        self._name = name
        self._noun = noun

    def __str__(self) -> str:
        return f"{self._what}: entry {display(self._name)}: {self._noun}"


Where = str | Place


def decode(block: bytes, *, where: str) -> Header:
    _check_sum(block, where)
    name = _text(block[0:100])
    magic = block[257:265]
    posix = magic[:6] == b"ustar\0"
    known = posix or magic == b"ustar  \0"
    if posix and block[345] != 0:
        name = _text(block[345:500]) + b"/" + name
    header = Header(
        block=block,
        type=block[156:157],
        name=name,
        link=_text(block[157:257]),
        mode=_field(block[100:108], Place(where, name, "mode")),
        uid=_field(block[108:116], Place(where, name, "uid")),
        gid=_field(block[116:124], Place(where, name, "gid")),
        size=_field(block[124:136], Place(where, name, "size")),
        mtime=_field(block[136:148], Place(where, name, "mtime")),
        # Before ustar these bytes were padding and may hold anything.
        device_major=_field(block[329:337], Place(where, name, "device")) if known else 0,
        device_minor=_field(block[337:345], Place(where, name, "device")) if known else 0,
    )
    if header.size < 0:
        raise errors.InvalidImage(f"{Place(where, name, 'size')}: negative")
    return header


def pax_records(data: bytes, *, where: Where) -> dict[str, bytes]:
    """`LENGTH KEY=VALUE\\n`, repeated; an empty value deletes the key, so it is left out."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        match = _PAX_LENGTH.match(data, position)
        end = position + int(match[1]) if match else 0
        if not match or end > len(data) or end <= match.end() or data[end - 1] != 0x0A:
            raise errors.InvalidImage(f"{where}: the record at byte {position} is malformed")
        key, equals, value = data[match.end() : end - 1].partition(b"=")
        if not key or not equals:
            raise errors.InvalidImage(f"{where}: the record at byte {position} is not KEY=VALUE")
        _add_record(records, key.decode("utf-8", "surrogateescape"), value)
        position = end
    return records


def _add_record(records: dict[str, bytes], key: str, value: bytes) -> None:
    if key in {"GNU.sparse.offset", "GNU.sparse.numbytes"}:
        # Sparse format 0.0 repeats these two; joined they are the map of format 0.1.
        joined = records.get("GNU.sparse.map")
        records["GNU.sparse.map"] = value if joined is None else joined + b"," + value
    elif value:
        records[key] = value
    else:
        records.pop(key, None)


def xattrs(pax: Mapping[str, bytes]) -> dict[str, bytes]:
    return {key.removeprefix(_XATTR_PREFIX): value for key, value in pax.items() if key.startswith(_XATTR_PREFIX)}


def number(pax: bytes | None, plain: int, *, where: Where) -> int:
    """The PAX value where there is one, else the header's."""
    if pax is None:
        return plain
    if not _DECIMAL.fullmatch(pax) or not 0 <= int(pax) < _MAX_NUMBER:
        raise errors.InvalidImage(f"{where}: {pax[:40]!r} is not a number from 0 to 2^62")
    return int(pax)


def time_ns(pax: bytes | None, plain_s: int, *, where: Where) -> int:
    """Nanoseconds since 1970; PAX writes decimal seconds: `-1.5` is -1500000000."""
    if pax is None:
        return plain_s * 1_000_000_000
    match = _TIME.fullmatch(pax)
    if not match:
        raise errors.InvalidImage(f"{where}: {pax[:40]!r} is not a time in seconds")
    value = int(match[2]) * 1_000_000_000 + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -value if match[1] else value


def old_sparse(block: bytes, read_block: Callable[[], bytes], *, where: Where) -> SparseMap:
    """GNU's own header: four pieces in the header itself, 21 in each block that follows it."""
    pairs = _old_pairs(block[386:482], where)
    extended = block[482] != 0
    while extended:
        block_after = read_block()
        pairs += _old_pairs(block_after[:504], where)
        extended = block_after[504] != 0
        if len(pairs) > MAX_SPARSE_SEGMENTS:
            raise _too_many_segments(where)
    return _sparse_map(_field(block[483:495], f"{where}: real size"), pairs, where)


def sparse_in_header(pax: Mapping[str, bytes], *, where: Where) -> SparseMap:
    """PAX formats 0.0 and 0.1: the map is text in the extended header."""
    values = [_decimal(text, where) for text in pax["GNU.sparse.map"].split(b",") if text]
    if len(values) % 2:
        raise errors.InvalidImage(f"{where}: an odd number of values")
    pairs = list(zip(values[::2], values[1::2], strict=True))
    return _sparse_map(_decimal(pax.get("GNU.sparse.size", b""), where), pairs, where)


def sparse_in_data(pax: Mapping[str, bytes], take: Callable[[int], bytes], *, where: Where) -> SparseMap:
    """PAX format 1.0: the map is lines of text at the start of the content, padded to whole blocks."""
    pending = b""

    def line() -> int:
        nonlocal pending
        while b"\n" not in pending:
            if len(pending) > 32:
                raise errors.InvalidImage(f"{where}: a line is too long")
            pending += _take_block(take)
        text, _, pending = pending.partition(b"\n")
        return _decimal(text, where)

    count = line()
    if count > MAX_SPARSE_SEGMENTS:
        raise _too_many_segments(where)
    pairs = [(line(), line()) for _ in range(count)]
    return _sparse_map(_decimal(pax.get("GNU.sparse.realsize", b""), where), pairs, where)


def _take_block(take: Callable[[int], bytes]) -> bytes:
    block = b""
    while len(block) < BLOCK:
        block += take(BLOCK - len(block))
    return block


def _sparse_map(size_bytes: int, pairs: list[tuple[int, int]], where: Where) -> SparseMap:
    if len(pairs) > MAX_SPARSE_SEGMENTS:
        raise _too_many_segments(where)
    end = 0
    for offset, length in pairs:
        if offset < end or length < 0:
            raise errors.InvalidImage(f"{where}: pieces overlap or run backwards")
        end = offset + length
    if end > size_bytes:
        raise errors.InvalidImage(f"{where}: a piece ends after the file")
    return SparseMap(size_bytes=size_bytes, segments=tuple(pair for pair in pairs if pair[1]))


def _too_many_segments(where: Where) -> errors.LimitExceeded:
    return errors.LimitExceeded(f"{where}: more than {MAX_SPARSE_SEGMENTS} pieces")


def _old_pairs(data: bytes, where: Where) -> list[tuple[int, int]]:
    pairs = []
    for start in range(0, len(data), 24):
        if data[start] == 0:
            break
        offset = _field(data[start : start + 12], f"{where}: offset")
        pairs.append((offset, _field(data[start + 12 : start + 24], f"{where}: length")))
    return pairs


def _decimal(text: bytes, where: Where) -> int:
    if not _DECIMAL.fullmatch(text) or not 0 <= int(text) < _MAX_NUMBER:
        raise errors.InvalidImage(f"{where}: {text[:40]!r} is not a number")
    return int(text)


def _text(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _field(data: bytes, where: Where) -> int:
    """Octal text, or GNU's base 256 when the first bit is set."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big")
        bits = 8 * len(data)
        value = value - (1 << bits) if data[0] & 0x40 else value & ((1 << (bits - 1)) - 1)
    else:
        digits = data.partition(b"\0")[0].strip(b" ")
        if digits.strip(b"01234567"):
            raise errors.InvalidImage(f"{where}: {data!r} is not an octal number")
        value = int(digits, 8) if digits else 0
    if not -_MAX_NUMBER < value < _MAX_NUMBER:
        raise errors.InvalidImage(f"{where}: out of range")
    return value


def _check_sum(block: bytes, where: str) -> None:
    # The sum is taken with its own field as blanks; very old archives summed signed bytes.
    rest = block[:148] + b"        " + block[156:]
    unsigned = sum(rest)
    digits = block[148:156].partition(b"\0")[0].strip(b" ")
    found = -1 if digits.strip(b"01234567") else int(digits or b"0", 8)
    if found != unsigned and found != unsigned - 256 * len(rest.translate(None, _ASCII)):
        raise errors.InvalidImage(
            f"{where}: not a tar header (its checksum is wrong); the archive is damaged or no tar"
        )

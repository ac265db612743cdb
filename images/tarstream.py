"""Read tar archives as a stream: entry by entry, in constant memory, trusting nothing.

POSIX ustar and PAX, GNU long names, base-256 numbers and all four ways of writing sparse files (tar(5), the GNU tar
manual's "Extensions to the POSIX format", pax(1)).

Two rules. A name that comes out is clean: relative, without `..`, `.`, empty or control characters, at most
`MAX_DEPTH` deep. And every length that the archive announces is bounded before it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from images import errors, streams, tarheader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_DEPTH = 256
MAX_PATH_BYTES = 4095
BLOCK = tarheader.BLOCK


class Kind(Enum):
    """What an entry makes."""

    FILE = "file"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


_CONTROL = bytes([*range(0x20), 0x7F])
_GLOBAL_KEYS = frozenset({"uid", "gid", "mtime"})
_KINDS = {
    b"\0": Kind.FILE,
    b"0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member. `name` is "" for the top folder; a hard link's `link` is cleaned like a name, a symlink's is raw."""

    name: str
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


class TarReader:
    """Iterate over it for the entries; between two steps `segments()` gives the current file's content."""

    def __init__(self, source: streams.Source, *, what: str, max_entries: int, start: int = 0) -> None:
        self._source = source
        self._skipper = source if isinstance(source, streams.Skipping) else None
        self._what = what
        self._max_entries = max_entries
        self._globals: dict[str, bytes] = {}
        self._content: list[tuple[int, int]] = []  # (offset in the file, length), what is still unread
        self._unread = 0  # bytes of the current member still in the stream, padding included
        self._name: bytes | None = None  # of the entry at hand, raw
        self.is_sparse = False  # whether the current file's content lies in pieces
        self.position = start  # in the stream
        self.entries = 0
        self.ended = False  # whether the end-of-archive marker was seen

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            self.entries += 1
            if self.entries > self._max_entries:
                raise errors.LimitExceeded(
                    f"{self._what}: more than {self._max_entries} entries; raise the bound to load it"
                )
            yield entry

    def segments(self) -> Iterator[tuple[int, bytes]]:
        """The content as (offset, bytes); what no segment covers is a hole."""
        for offset, length in self._content:
            done = 0
            while done < length:
                data = self._take(min(streams.CHUNK_BYTES, length - done))
                yield offset + done, data
                done += len(data)
        self._content = []

    def drain(self) -> None:
        """Read what follows the end marker (padding), so that a digest over the stream is complete."""
        if self._skipper is None:  # else nobody digests it
            while data := self._source.read(streams.CHUNK_BYTES):
                self.position += len(data)

    # Members ----------------------------------------------------------------------------------------------------------

    def _next(self) -> Entry | None:
        self._skip()
        extended: dict[str, bytes] = {}
        # An extended header describes the next real one; more than a few in a row is an attack on our patience.
        for _ in range(8):
            header = self._header()
            if header is None:
                self._check_end(extended)
                return None
            self._name = header.name
            if header.type in b"xX":
                extended.update(self._pax(header))
            elif header.type == b"g":
                self._globals.update(self._global_pax(header))
            elif header.type in b"LK":
                key = "path" if header.type == b"L" else "linkpath"
                extended.setdefault(key, self._meta(header).rstrip(b"\0"))
            else:
                return self._member(header, {**self._globals, **extended})
        raise self._invalid("too many extended headers before it")

    def _check_end(self, extended: Mapping[str, bytes]) -> None:
        if extended:
            raise self._invalid("the archive ends after its extended header; it was cut off")

    def _header(self) -> tarheader.Header | None:
        block = self._read_block()
        if not block:
            return None
        if not any(block):
            self.ended = True
            return None
        return tarheader.decode(block, where=f"{self._what}: at byte {self.position - BLOCK}")

    def _member(self, header: tarheader.Header, pax: Mapping[str, bytes]) -> Entry:
        raw_name = pax.get("GNU.sparse.name") or pax.get("path") or header.name
        self._name = raw_name
        kind = _KINDS.get(header.type)
        if kind is None:
            raise self._invalid(f"entries of type {header.type!r} are not known")
        stored = tarheader.number(pax.get("size"), header.size, where=self._place("size"))
        self._unread = _padded(stored) if kind is Kind.FILE else 0
        if kind is Kind.FILE and raw_name.endswith(b"/"):
            kind = Kind.DIRECTORY  # how archives before POSIX wrote folders
        size = self._sparse(header, pax, stored) if kind is Kind.FILE else 0
        return Entry(
            name=self._clean(raw_name),
            kind=kind,
            mode=header.mode & 0o7777,
            uid=self._owner(pax.get("uid"), header.uid, "uid"),
            gid=self._owner(pax.get("gid"), header.gid, "gid"),
            mtime_ns=tarheader.time_ns(pax.get("mtime"), header.mtime, where=self._place("mtime")),
            size_bytes=size,
            link=self._link(kind, pax.get("linkpath") or header.link),
            device=self._device(kind, header),
            xattrs=tarheader.xattrs(pax),
        )

    def _link(self, kind: Kind, raw: bytes) -> str:
        if kind is Kind.HARDLINK:
            return self._clean(raw)
        if kind is not Kind.SYMLINK:
            return ""
        if not raw or b"\0" in raw or len(raw) > MAX_PATH_BYTES:
            raise self._invalid("its link target is empty, too long or holds a NUL")
        return raw.decode("utf-8", "surrogateescape")

    def _device(self, kind: Kind, header: tarheader.Header) -> tuple[int, int]:
        if kind not in {Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE}:
            return 0, 0
        major, minor = header.device_major, header.device_minor
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise self._invalid(f"device {major}:{minor} is out of range")
        return major, minor

    def _owner(self, pax: bytes | None, plain: int, noun: str) -> int:
        value = tarheader.number(pax, plain, where=self._place(noun))
        # chown(2) takes 2^32-1 for "leave it as it is", which would be root.
        if not 0 <= value < 0xFFFFFFFF:
            raise self._invalid(f"{noun} {value} is not from 0 to 2^32-2")
        return value

    def _clean(self, raw: bytes) -> str:
        if len(raw) > MAX_PATH_BYTES:
            raise self._invalid(f"its path is longer than {MAX_PATH_BYTES} bytes")
        if len(raw.translate(None, _CONTROL)) != len(raw):
            raise self._invalid("its path holds a control character; such names are refused")
        if raw.startswith(b"/"):
            raise self._invalid("its path is absolute; pack it with relative names")
        parts = [part for part in raw.split(b"/") if part not in {b"", b"."}]
        if b".." in parts:
            raise self._invalid("its path holds '..'; such names are refused")
        if len(parts) > MAX_DEPTH:
            raise self._invalid(f"its path is deeper than {MAX_DEPTH} folders")
        if any(len(part) > 255 for part in parts):
            raise self._invalid("a part of its path is longer than 255 bytes")
        return b"/".join(parts).decode("utf-8", "surrogateescape")

    # Sparse files -----------------------------------------------------------------------------------------------------

    def _sparse(self, header: tarheader.Header, pax: Mapping[str, bytes], stored: int) -> int:
        """Set the map of the content; return the size of the file once unpacked."""
        where = self._place("sparse map")
        self.is_sparse = True
        if header.type == b"S":
            layout = tarheader.old_sparse(header.block, self._read_extra_block, where=where)
            self._unread = _padded(stored)
        elif pax.get("GNU.sparse.major") == b"1":
            before = self.position
            layout = tarheader.sparse_in_data(pax, self._take, where=where)
            stored -= self.position - before
        elif "GNU.sparse.map" in pax:
            layout = tarheader.sparse_in_header(pax, where=where)
        else:
            self.is_sparse = False
            self._content = [(0, stored)]
            return stored
        if sum(length for _, length in layout.segments) != stored:
            raise self._invalid("its sparse map does not fit its content")
        self._content = list(layout.segments)
        return layout.size_bytes

    def _read_extra_block(self) -> bytes:
        block = self._read_block()
        if not block:
            raise self._cut_off()
        return block

    # Bytes ------------------------------------------------------------------------------------------------------------

    def _pax(self, header: tarheader.Header) -> dict[str, bytes]:
        return tarheader.pax_records(self._meta(header), where=self._place("extended header"))

    def _global_pax(self, header: tarheader.Header) -> dict[str, bytes]:
        records = self._pax(header)
        for key in records:
            if key in {"path", "linkpath", "size"} or key.startswith(("GNU.sparse", "SCHILY.xattr")):
                raise self._invalid(f"a global header sets {key!r:.60} for all entries; such archives are refused")
        # What else it may say (git writes a comment) is not kept: an archive could say it without end.
        return {key: value for key, value in records.items() if key in _GLOBAL_KEYS}

    def _meta(self, header: tarheader.Header) -> bytes:
        if header.size > tarheader.MAX_EXTENDED_BYTES:
            raise self._invalid(f"its extended header is larger than {tarheader.MAX_EXTENDED_BYTES >> 20} MiB")
        self._unread = _padded(header.size)
        data = b"".join(iter(lambda: self._take(self._unread), b"")) if self._unread else b""
        return data[: header.size]

    def _skip(self) -> None:
        self._content = []
        if self._skipper is not None and self._unread:
            skipped = self._skipper.skip(self._unread)
            self.position += skipped
            self._unread -= skipped
        while self._unread:
            self._take(min(self._unread, streams.CHUNK_BYTES))

    def _take(self, size: int) -> bytes:
        """Up to `size` bytes of the current member, at least one while there are any."""
        if size == 0:
            return b""
        if size > self._unread:
            raise self._invalid("its content is shorter than it announces")
        data = self._source.read(size)
        if not data:
            raise self._cut_off()
        self.position += len(data)
        self._unread -= len(data)
        return data

    def _read_block(self) -> bytes:
        block = b""
        while len(block) < BLOCK and (more := self._source.read(BLOCK - len(block))):
            block += more
        if 0 < len(block) < BLOCK:
            raise self._cut_off()
        self.position += len(block)
        return block

    def _place(self, noun: str) -> tarheader.Place:
        return tarheader.Place(self._what, self._name or b"", noun)

    def _invalid(self, reason: str) -> errors.InvalidImage:
        return errors.InvalidImage(str(self._place(reason)))

    def _cut_off(self) -> errors.InvalidImage:
        name = "nothing" if self._name is None else tarheader.display(self._name)
        return errors.InvalidImage(f"{self._what}: cut off at byte {self.position}, in or after {name}; copy it again")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK

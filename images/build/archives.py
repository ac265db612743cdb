"""ADD's archives: what is a tar, plain or compressed, and how it is taken apart inside a tree.

Rules. Whether a file is an archive is told by its bytes. Names that lead out of the target are refused, as in layers,
and links inside the tree are followed inside it only (`TreeWriter`). A whiteout means nothing here: `.wh.x` is a name,
and is refused like any other file of that name when the layer is written. Bounds are those of layers.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import posixpath
import stat
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from images import compression, errors, streams, tarheader
from images.build.tree_writer import Looks, TreeWriter
from images.tarstream import Entry, Kind, TarReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from images.build.owners import Owner

_Machine: TypeAlias = "lzma.LZMADecompressor | bz2.BZ2Decompressor"
_XZ, _BZIP2 = b"\xfd7zXZ\x00", b"BZh"
_MAX_XZ_BYTES = 256 << 20  # what a dictionary may take in memory
_LIMITS = compression.Limits()
_SECOND_NS = 1_000_000_000
_FILE_LIKE = {Kind.FIFO: stat.S_IFIFO, Kind.CHARACTER_DEVICE: stat.S_IFCHR, Kind.BLOCK_DEVICE: stat.S_IFBLK}


def is_archive(file: BinaryIO) -> bool:
    """Whether the bytes, once decompressed, begin with the header of a tar. The position is back at the start."""
    try:
        start = _plain(file, "archive").read(tarheader.BLOCK)
        return len(start) == tarheader.BLOCK and bool(tarheader.decode(start, where="archive").name)
    except (errors.ImageError, OSError):
        return False
    finally:
        file.seek(0)


def unpack(file: BinaryIO, writer: TreeWriter, target: str, *, owner: Owner | None, what: str) -> None:
    """Take a tar apart into the folder `target` of the tree."""
    meter = compression.Meter(
        _plain(file, what), stored_bytes=os.fstat(file.fileno()).st_size, limits=_LIMITS, what=what
    )
    reader = TarReader(meter, what=what, max_entries=_LIMITS.max_entries)
    unpacker = _Unpacker(writer, target, owner)
    for entry in reader:
        unpacker.put(entry, reader)
    reader.drain()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(file: BinaryIO, what: str) -> streams.Source:
    magic = file.read(compression.MAGIC_BYTES)
    file.seek(0)
    if magic.startswith(_XZ):
        return _Decompressed(file, lambda: lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES), what)
    if magic.startswith(_BZIP2):
        return _Decompressed(file, bz2.BZ2Decompressor, what)
    return compression.reader(file, what=what)


class _Decompressed:
    """The streams of xz or bzip2 in a file, as one: what compresses in parallel writes many. Zeros may lie between.

    Never more is in memory than was asked for.
    """

    def __init__(self, file: BinaryIO, begin: Callable[[], _Machine], what: str) -> None:
        self._file = file
        self._begin = begin
        self._what = what
        self._machine = begin()
        self._next = b""

    def read(self, size: int, /) -> bytes:
        while not self._machine.eof or self._has_more():
            data = b""
            if self._machine.needs_input:
                data = self._next or self._file.read(streams.CHUNK_BYTES)
                self._next = b""
                if not data:
                    raise errors.InvalidImage(f"{self._what}: cannot be decompressed: it is cut off")
            if found := self._decompressed(data, size):
                return found
        return b""

    def _decompressed(self, data: bytes, size: int) -> bytes:
        try:
            return self._machine.decompress(data, size)
        except (OSError, lzma.LZMAError) as error:  # OSError is what bz2 says of bad bytes
            raise errors.InvalidImage(f"{self._what}: cannot be decompressed: {error}") from error

    def _has_more(self) -> bool:
        """Go on to the stream after the one that has ended, if there is one."""
        rest = self._machine.unused_data.lstrip(b"\0")
        while not rest:
            data = self._file.read(streams.CHUNK_BYTES)
            if not data:
                return False
            rest = data.lstrip(b"\0")
        self._machine, self._next = self._begin(), rest
        return True


class _Unpacker:
    """Puts the entries of one archive into the tree."""

    def __init__(self, writer: TreeWriter, target: str, owner: Owner | None) -> None:
        self._writer = writer
        self._target = target.strip("/")
        self._owner = owner

    def put(self, entry: Entry, reader: TarReader) -> None:
        if not entry.name:
            return  # the target's own looks are the image's
        path = self._below(entry.name)
        self._writer.folders(posixpath.dirname(path), self._made())
        looks = self._looks(entry)
        match entry.kind:
            case Kind.DIRECTORY:
                self._folder(path, looks)
            case Kind.FILE:
                self._writer.pieces(path, reader.segments(), entry.size_bytes, looks)
            case Kind.SYMLINK:
                self._writer.link(path, entry.link, looks)
            case Kind.HARDLINK:
                self._writer.hardlink(path, self._below(entry.link))
            case kind:
                self._writer.node(path, _FILE_LIKE[kind], os.makedev(*entry.device), looks)

    def _folder(self, path: str, looks: Looks) -> None:
        self._writer.folder(path, looks, described=True)

    def _below(self, name: str) -> str:
        return f"{self._target}/{name}".strip("/")

    def _looks(self, entry: Entry) -> Looks:
        owner = self._owner
        kept = {key: value for key, value in entry.xattrs.items() if key == "security.capability"}
        return Looks(
            mode=entry.mode,
            uid=entry.uid if owner is None else owner.uid,
            gid=entry.gid if owner is None else owner.gid,
            mtime_s=entry.mtime_ns // _SECOND_NS,
            xattrs=kept,
        )

    def _made(self) -> Looks:
        owner = self._owner
        return Looks(mode=0o755, uid=owner.uid if owner else 0, gid=owner.gid if owner else 0)

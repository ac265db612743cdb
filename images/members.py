"""Look at an archive as named members that can be opened in any order, whether it is a tar or a folder.

The rule: a member is opened by looking its name up among what the archive holds, or below the folder without following
links; a name from a document is never joined to a path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol

from images import compression, documents, errors, streams, syscalls
from images.tarstream import Kind, TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Docker and OCI archives have a few members a layer; a root file system may have many more, and is not looked up.
MAX_MEMBERS = 100_000


class Members(Protocol):
    """What `images.archive` asks of an archive."""

    @property
    def what(self) -> str: ...

    def has(self, name: str) -> bool: ...

    def open(self, name: str) -> contextlib.AbstractContextManager[Window]:
        """Open a file of the archive; `InvalidImage` when there is no such file. Any thread may do so."""


class Window:
    """Some bytes of a file, read from start to end. Several of one file, with one lock, may be read by threads."""

    def __init__(self, file: BinaryIO, *, start: int, size_bytes: int, lock: threading.Lock | None = None) -> None:
        self._file = file
        self._lock = lock or threading.Lock()
        self._position = start
        self._end = start + size_bytes
        self.size_bytes = size_bytes

    def read(self, size: int, /) -> bytes:
        with self._lock:
            self._file.seek(self._position)
            data = self._file.read(min(size, self._end - self._position))
        self._position += len(data)
        return data

    def peek(self, size: int) -> bytes:
        before = self._position
        data = self.read(size)
        self._position = before
        return data


def read_document(members: Members, name: str) -> bytes:
    """A small member, whole; one that is too large comes cut just past the bound, and its parser refuses it."""
    with members.open(name) as window:
        data = b""
        while len(data) <= documents.MAX_DOCUMENT_BYTES and (more := window.read(documents.MAX_DOCUMENT_BYTES + 1)):
            data += more
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    kind: Kind
    start: int
    size_bytes: int
    link: str
    sparse: bool


class TarMembers:
    """A plain tar in a seekable file, listed once."""

    def __init__(self, file: BinaryIO, *, what: str, listing: dict[str, _Member]) -> None:
        self._file = file
        self._listing = listing
        self._lock = threading.Lock()
        self.what = what

    def has(self, name: str) -> bool:
        return name in self._listing

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Window]:
        member = self._file_member(name)
        yield Window(self._file, start=member.start, size_bytes=member.size_bytes, lock=self._lock)

    def _file_member(self, name: str) -> _Member:
        member = self._listing.get(name)
        if member is not None and member.kind is Kind.SYMLINK:
            # `docker save` writes a layer that two images share as a link from one to the other. One step, inside the
            # archive's own names; anything else is nobody's honest archive.
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.link))
            member = self._listing.get(target)
            if member is None or member.kind is not Kind.FILE:
                raise errors.InvalidImage(f"{self.what}: entry {name!r:.200} is a link to no file of the archive")
        if member is None:
            raise errors.InvalidImage(f"{self.what}: entry {name!r:.200} is named but missing; save the image again")
        if member.kind is not Kind.FILE or member.sparse:
            raise errors.InvalidImage(f"{self.what}: entry {name!r:.200} is not a plain file")
        return member


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What one pass over an archive found. The diff id is empty where contents were passed over."""

    listing: dict[str, _Member]
    repeated: str | None
    entries: int
    diff_id: str = ""


def scan(source: streams.Source, *, stored_bytes: int, limits: compression.Limits, what: str) -> Scan:
    """Read a decompressed tar from end to end: every name is checked, nothing is kept but the list."""
    meter = compression.Meter(source, stored_bytes=stored_bytes, limits=limits, what=what)
    found = _listed(TarReader(meter, what=what, max_entries=limits.max_entries), what)
    return replace(found, diff_id=meter.digest)


def scan_plain(file: BinaryIO, *, limits: compression.Limits, what: str) -> Scan:
    """List a plain tar from the file's position on by its headers alone; the positions count from the file's start."""
    source = _Headers(file)
    if source.end - source.position > limits.max_bytes:
        raise errors.LimitExceeded(f"{what}: more than {limits.max_bytes} bytes; raise the bound to load it")
    return _listed(TarReader(source, what=what, max_entries=limits.max_entries, start=source.position), what)


def _listed(reader: TarReader, what: str) -> Scan:
    listing: dict[str, _Member] = {}
    repeated: str | None = None
    for entry in reader:
        if entry.name in listing and entry.kind is not Kind.DIRECTORY:
            repeated = repeated or entry.name
        if len(listing) <= MAX_MEMBERS:
            listing[entry.name] = _Member(
                kind=entry.kind,
                start=reader.position,
                size_bytes=entry.size_bytes,
                link=entry.link,
                sparse=reader.is_sparse,
            )
    if not reader.ended:
        raise errors.InvalidImage(f"{what}: cut off at byte {reader.position}: no end mark; copy the archive again")
    reader.drain()
    return Scan(listing=listing, repeated=repeated, entries=reader.entries)


class _Headers:
    """A file of which most is passed over."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = file.tell()
        self.end = file.seek(0, os.SEEK_END)
        file.seek(self.position)

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        return data

    def skip(self, size: int) -> int:
        """Pass over up to `size` bytes; how many there were."""
        skipped = min(size, self.end - self.position)
        self.position += skipped
        self._file.seek(self.position)
        return skipped


class FolderMembers:
    """An OCI layout as a folder of this machine, which may be somebody else's: links and special files are refused."""

    def __init__(self, folder_fd: int, *, what: str) -> None:
        self._folder = folder_fd
        self.what = what

    def has(self, name: str) -> bool:
        try:
            os.close(syscalls.open_beneath(self._folder, name, os.O_PATH))
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Window]:
        try:
            # Not waiting: a pipe in the place of a file must not hold us up.
            fd = syscalls.open_beneath(self._folder, name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            reason = "passes through a symbolic link" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
            raise errors.InvalidImage(f"{self.what}: file {name!r:.200}: {reason}") from error
        with os.fdopen(fd, "rb", buffering=0) as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise errors.InvalidImage(f"{self.what}: {name!r:.200} is not a plain file")
            yield Window(file, start=0, size_bytes=found.st_size)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[FolderMembers]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield FolderMembers(fd, what=f"folder {path}")
    finally:
        os.close(fd)

"""Blobs: files named by the sha256 of their content.

The rule: a blob that has its name is whole. It is written below `tmp/`, compared with its digest and size, flushed to
the disk and only then renamed; a reader or a `kill -9` never meets half of one. Writers of the same blob replace each
other with equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from images import digest as digests
from images import disk, errors, hashing, scratch, streams

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BLOB_BYTES = 64 << 30


class Writer:
    """Takes the bytes of one blob; `digest` is known once the `with` block has ended."""

    def __init__(self, fd: int, *, place: Path, announced: str | None, size_bytes: int | None) -> None:
        self._fd = fd
        self._place = place
        self._announced = announced
        self._expected_size = size_bytes
        self._hash = hashing.Sha256()
        self.size_bytes = 0

    @property
    def digest(self) -> str:
        return self._hash.digest

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes. Raises as soon as there are more than were announced."""
        size = self.size_bytes + len(data)
        if self._expected_size is not None and size > self._expected_size:
            announced = f"the {self._expected_size} bytes announced"
            raise errors.DigestMismatch(f"{self._title}: more than {announced}; fetch it again")
        if size > MAX_BLOB_BYTES:
            raise errors.LimitExceeded(f"{self._title}: more than {MAX_BLOB_BYTES} bytes; split the layer")
        self._hash.update(data)
        with disk.storage_errors(f"write of {self._title} below {self._place}"):
            streams.write_all(self._fd, data)
        self.size_bytes = size
        return len(data)

    def copy(self, source: streams.Source) -> None:
        """Append everything that a file still has."""
        while chunk := source.read(streams.CHUNK_BYTES):
            self.write(chunk)

    def verify(self) -> None:
        if self._expected_size not in {None, self.size_bytes}:
            expected = self._expected_size
            raise errors.DigestMismatch(f"{self._title}: {self.size_bytes} bytes, announced {expected}; fetch it again")
        if self._announced not in {None, self.digest}:
            raise errors.DigestMismatch(f"{self._title}: the bytes have digest {self.digest}; fetch it again")

    @property
    def _title(self) -> str:
        return f"blob {self._announced or '(digest not known yet)'}"


@contextlib.contextmanager
def writer(folder: Path, area: Path, *, digest: str | None, size_bytes: int | None) -> Iterator[Writer]:
    """Write a blob into `folder` by way of `area`; when the block raises, nothing is kept."""
    if digest is not None:
        digests.check(digest, what="blob")
    with scratch.file(area) as item:
        blob = Writer(item.fd, place=folder, announced=digest, size_bytes=size_bytes)
        yield blob
        blob.verify()
        with disk.storage_errors(f"write of blob {blob.digest} below {folder}"):
            os.fsync(item.fd)
            item.path.replace(folder / digests.hex_of(blob.digest))
            sync_folder(folder)


def adopt(path: Path, folder: Path, *, digest: str, size_bytes: int) -> None:
    """Move a finished file of the same file system into `folder`, once its bytes are those of the digest.

    Raises `DigestMismatch`, and then leaves the file where it is.
    """
    digests.check(digest, what="blob")
    with disk.storage_errors(f"taking in blob {digest} from {path}"), path.open("rb") as file:
        found = digests.PREFIX + hashlib.file_digest(file, "sha256").hexdigest()
        stored_bytes = os.fstat(file.fileno()).st_size
        if stored_bytes != size_bytes:
            raise errors.DigestMismatch(f"blob {digest}: {stored_bytes} bytes, announced {size_bytes}; send it again")
        if found != digest:
            raise errors.DigestMismatch(f"blob {digest}: the bytes have digest {found}; send it again")
        os.fsync(file.fileno())
        path.replace(folder / digests.hex_of(digest))
        sync_folder(folder)


def replace_file(path: Path, data: bytes, area: Path) -> None:
    """Give `path` new content, all or nothing, also across a power cut."""
    with disk.storage_errors(f"write of {path}"), scratch.file(area) as item:
        streams.write_all(item.fd, data)
        os.fsync(item.fd)
        item.path.replace(path)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a rename: the name is in the folder, and only the folder's own fsync puts it on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

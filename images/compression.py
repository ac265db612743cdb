"""Decompression of layers and archives, as streams of bounded pieces.

The rule: what counts is how the bytes begin, not what somebody called them; and no read yields more than it was asked
for, so a bomb costs time but no memory. Bounds on time and disk are the business of `Meter`.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from images import digest as digests
from images import errors, streams

if TYPE_CHECKING:
    from typing import BinaryIO

_READ_BYTES = 256 << 10
MAGIC_BYTES = 6
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_REFUSED = {
    b"\xfd7zXZ\x00": ("xz", "xz -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"PK\x03\x04": ("zip", "unzip"),
}
# Text and program binaries reach 10:1; only content made to deceive, or long runs of zeros, passes this.
MAX_RATIO = 200
# Below this many bytes the ratio says nothing: a small archive of zeros harms nobody.
RATIO_FREE_BYTES = 64 << 20


Kind = Literal["none", "gzip", "zstd"]


def detect(start: bytes, *, what: str) -> Kind:
    """The compression from the first bytes; `Unsupported` for what we know but do not read."""
    if start.startswith(_GZIP_MAGIC):
        return "gzip"
    if start.startswith(_ZSTD_MAGIC):
        return "zstd"
    for magic, (name, command) in _REFUSED.items():
        if start.startswith(magic):
            raise errors.Unsupported(
                f"{what}: compressed with {name}, which is not read; decompress it with `{command}`"
            )
    return "none"


def peek(file: BinaryIO, *, what: str) -> Kind:
    """What the file holds from its position on, which stays; the file must be seekable."""
    start = file.tell()
    magic = file.read(MAGIC_BYTES)
    file.seek(start)
    return detect(magic, what=what)


def reader(file: BinaryIO, *, what: str) -> streams.Source:
    """Read `file` from its position on, decompressed; the file must be seekable."""
    return decompressed(file, peek(file, what=what), what=what)


def decompressed(source: streams.Source, kind: Kind, *, what: str) -> streams.Source:
    """What is known to be compressed so, decompressed."""
    if kind == "zstd":
        # Imported by whoever meets such a layer: its library is no part of Python.
        from images import zstd

        return zstd.ZstdReader(source, what=what)
    return GzipReader(source, what=what) if kind == "gzip" else source


class GzipReader:
    """A gzip stream of one or more members (RFC 1952), checked to its last checksum."""

    def __init__(self, file: streams.Source, *, what: str) -> None:
        self._file = file
        self._what = what
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._pending = b""
        self._started = False  # inside a member: an end of file here is a cut
        self._between = False  # after a member, before the next

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, at least one until the end."""
        try:
            return self._read(size)
        except zlib.error as error:
            raise errors.InvalidImage(f"{self._what}: the gzip stream is damaged ({error}); fetch it again") from error

    def _read(self, size: int) -> bytes:
        while True:
            if not self._pending:
                self._pending = self._file.read(_READ_BYTES)
                if self._between and self._pending:
                    # Tapes and some tools pad with zeros after the last member.
                    self._pending = self._pending.lstrip(b"\0")
                    continue
            if not self._pending and self._started:
                # What was held back for want of room comes out before the end is believed.
                return self._flush(size)
            if not self._pending:
                return b""
            data = self._inflate.decompress(self._pending, size)
            self._pending = self._inflate.unconsumed_tail
            self._started, self._between = True, False
            if self._inflate.eof:
                self._next_member()
            if data:
                return data

    def _flush(self, size: int) -> bytes:
        data = self._inflate.decompress(b"", size)
        if not data:
            raise errors.InvalidImage(f"{self._what}: the gzip stream was cut off; fetch it again")
        return data

    def _next_member(self) -> None:
        self._pending = self._inflate.unused_data.lstrip(b"\0")
        self._between = True
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._started = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may become: bytes once decompressed, entries, and bytes out for each byte in."""

    max_bytes: int = 20 << 30
    max_entries: int = 1_000_000
    max_ratio: int = MAX_RATIO


class Meter:
    """A source that digests and counts what passes, and stops a bomb."""

    def __init__(self, source: streams.Source, *, stored_bytes: int, limits: Limits, what: str) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._what = what
        by_ratio = max(stored_bytes * limits.max_ratio, RATIO_FREE_BYTES)
        self._bound = min(limits.max_bytes, by_ratio)
        self._reason = (
            f"{limits.max_bytes} bytes" if self._bound < by_ratio else f"{limits.max_ratio} times its stored size"
        )
        self.size_bytes = 0

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self.size_bytes += len(data)
        if self.size_bytes > self._bound:
            raise errors.LimitExceeded(f"{self._what}: grows to more than {self._reason}; raise the bound to load it")
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return digests.PREFIX + self._hash.hexdigest()

    def check(self, diff_id: str) -> None:
        """`DigestMismatch` unless all that has passed, which is now the whole layer, is what the config says."""
        if self.digest != diff_id:
            message = f"its content has digest {self.digest}, the image's config says {diff_id}; fetch it again"
            raise errors.DigestMismatch(f"{self._what}: {message}")

"""Compression of layers, on all processors, with the same bytes for the same content and library.

gzip: the content is cut into pieces that are deflated side by side, each with the end of the one before as its
dictionary, and joined as one member (RFC 1952; RFC 1951, 3.2.4: an empty stored block ends a piece at a byte). zstd has
threads of its own. The rule: a bounded number of pieces is on its way, whoever is slower.
"""

from __future__ import annotations

import collections
import os
import zlib
from concurrent import futures
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from images import streams

Kind = Literal["none", "gzip", "zstd"]

_PIECE_BYTES = 1 << 20
_WINDOW_BYTES = 32 << 10
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3
# No name, no time, an unknown system: nothing that differs from machine to machine.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


class GzipWriter:
    """Writes one gzip member to a sink; complete once the `with` block has ended without an error."""

    def __init__(self, sink: streams.Sink) -> None:
        self._sink = sink
        self._threads = os.cpu_count() or 1
        self._pool = futures.ThreadPoolExecutor(self._threads, thread_name_prefix="gzip")
        self._pieces: collections.deque[futures.Future[bytes]] = collections.deque()
        self._pending = bytearray()
        self._before = b""
        self._checksum = 0
        self._size_bytes = 0

    def __enter__(self) -> Self:
        self._sink.write(_GZIP_HEADER)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._pool:
            if kind is None:
                self._finish()

    def write(self, data: bytes) -> int:
        self._pending += data
        while len(self._pending) > _PIECE_BYTES:  # the last piece is not empty: it carries the end mark
            self._submit(bytes(self._pending[:_PIECE_BYTES]), last=False)
            del self._pending[:_PIECE_BYTES]
        return len(data)

    def _finish(self) -> None:
        self._submit(bytes(self._pending), last=True)
        while self._pieces:
            self._sink.write(self._pieces.popleft().result())
        self._sink.write(self._checksum.to_bytes(4, "little") + (self._size_bytes & 0xFFFFFFFF).to_bytes(4, "little"))

    def _submit(self, piece: bytes, *, last: bool) -> None:
        if len(self._pieces) >= 2 * self._threads:
            self._sink.write(self._pieces.popleft().result())
        self._pieces.append(self._pool.submit(_deflate, piece, self._before, last=last))
        self._checksum = zlib.crc32(piece, self._checksum)
        self._size_bytes += len(piece)
        self._before = piece[-_WINDOW_BYTES:]


def _deflate(piece: bytes, before: bytes, *, last: bool) -> bytes:
    options = (_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY)
    packer = zlib.compressobj(*options, before) if before else zlib.compressobj(*options)
    return packer.compress(piece) + packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def copy(source: streams.Source, sink: streams.Sink, kind: Kind) -> None:
    """Everything that a source has, compressed so."""
    match kind:
        case "none":
            _copy(source, sink)
        case "gzip":
            with GzipWriter(sink) as writer:
                _copy(source, writer)
        case "zstd":
            _zstd(source, sink)


def _copy(source: streams.Source, sink: streams.Sink) -> None:
    while data := source.read(_PIECE_BYTES):
        sink.write(data)


def _zstd(source: streams.Source, sink: streams.Sink) -> None:
    import zstandard  # no part of Python, so only who needs it loads it

    packer = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=-1, write_checksum=True).compressobj()
    while data := source.read(_PIECE_BYTES):
        sink.write(packer.compress(data))
    sink.write(packer.flush())

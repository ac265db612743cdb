"""zstd streams (RFC 8878): decompression in bounded pieces, of one or more frames, checked to the last byte.

Two rules. A window larger than `MAX_WINDOW_BYTES` is refused before the decompressor sees the frame, so memory is
bounded. And the frames are followed beside the decompressor, which takes the end of its input for the end of a frame:
a stream that was cut off is told from a whole one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import zstandard

from images import errors

if TYPE_CHECKING:
    from images import streams

MAX_WINDOW_BYTES = 128 << 20  # what `zstd --ultra -22` needs; only `--long=28` and above need more
_READ_BYTES = 256 << 10
_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_RLE, _RESERVED = 1, 3


class ZstdReader:
    """Reads `file` decompressed; as a `streams.Source`."""

    def __init__(self, file: streams.Source, *, what: str) -> None:
        self._what = what
        self._frames = Frames(what=what)
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._reader = decompressor.stream_reader(
            _Watched(file, self._frames),  # type: ignore[arg-type]  # it is only read from
            read_size=_READ_BYTES,
            read_across_frames=True,
        )

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, at least one until the end."""
        try:
            data = self._reader.read(size)
        except zstandard.ZstdError as error:
            raise errors.InvalidImage(f"{self._what}: the zstd stream is damaged ({error}); fetch it again") from error
        if not data and size and not self._frames.whole:
            raise errors.InvalidImage(f"{self._what}: the zstd stream was cut off; fetch it again")
        return data


class _Watched:
    """Shows the frames what the decompressor is about to get."""

    def __init__(self, file: streams.Source, frames: Frames) -> None:
        self._file = file
        self._frames = frames

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._frames.feed(data)
        return data


class Frames:
    """Follows the outline of frames: magic, header, blocks, checksum. `whole` says whether the last one has ended."""

    def __init__(self, *, what: str) -> None:
        self._what = what
        self._next = self._magic
        self._want = 4  # bytes of the field that `_next` reads
        self._have = b""
        self._skip = 0  # bytes of content before that field
        self._checksum_bytes = 0
        self._head_bytes = 0

    @property
    def whole(self) -> bool:
        return self._next == self._magic and not self._have and not self._skip

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. `InvalidImage` when they are no frame, or one with too large a window."""
        position = 0
        while position < len(data):
            skipped = min(self._skip, len(data) - position)
            self._skip -= skipped
            position += skipped
            taken = data[position : position + self._want - len(self._have)]
            position += len(taken)
            self._have += taken
            if len(self._have) == self._want:
                field, self._have = self._have, b""
                self._next(field)

    def _magic(self, field: bytes) -> None:
        magic = int.from_bytes(field, "little")
        if magic & 0xFFFFFFF0 == _SKIPPABLE:
            self._next = self._skippable
        elif magic == _MAGIC:
            self._next, self._want = self._descriptor, 1
        else:
            raise errors.InvalidImage(f"{self._what}: what follows its first zstd frame is none; fetch it again")

    def _skippable(self, field: bytes) -> None:
        self._skip = int.from_bytes(field, "little")
        self._next = self._magic

    def _descriptor(self, field: bytes) -> None:
        """Frame_Header_Descriptor: which of the following fields there are (RFC 8878, 3.1.1.1.1)."""
        flags = field[0]
        single = bool(flags & 0x20)
        self._checksum_bytes = 4 if flags & 0x04 else 0
        dictionary_bytes = (0, 1, 2, 4)[flags & 3]
        size_bytes = (1 if single else 0, 2, 4, 8)[flags >> 6]
        self._head_bytes = 0 if single else 1
        self._want = self._head_bytes + dictionary_bytes + size_bytes
        self._next = self._single_segment if single else self._windowed
        self._head_bytes += dictionary_bytes

    def _windowed(self, field: bytes) -> None:
        base = 1 << (10 + (field[0] >> 3))
        self._begin(base + base // 8 * (field[0] & 7))

    def _single_segment(self, field: bytes) -> None:
        """The whole content is the window; a size of two bytes counts from 256."""
        size = field[self._head_bytes :]
        self._begin(int.from_bytes(size, "little") + (256 if len(size) == 2 else 0))

    def _begin(self, window_bytes: int) -> None:
        if window_bytes > MAX_WINDOW_BYTES:
            raise errors.LimitExceeded(
                f"{self._what}: its zstd window has {window_bytes >> 20} MiB, the bound is {MAX_WINDOW_BYTES >> 20}; "
                f"compress it again without --long"
            )
        self._next, self._want = self._block, 3

    def _block(self, field: bytes) -> None:
        header = int.from_bytes(field, "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == _RESERVED:
            raise errors.InvalidImage(f"{self._what}: the zstd stream is damaged (a reserved block); fetch it again")
        self._skip = 1 if kind == _RLE else size
        if last:
            self._skip += self._checksum_bytes
            self._next, self._want = self._magic, 4

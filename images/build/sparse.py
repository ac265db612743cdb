"""Which parts of a large file are not zeros, in whole blocks, so that equal contents have equal maps on every disk.

Holes of the file system only save the reading: what a disk keeps as zeros counts as zeros as well.
"""

from __future__ import annotations

import errno
import os

BLOCK_BYTES = 64 << 10
_ZEROS = bytes(BLOCK_BYTES)


def pieces(fd: int, size_bytes: int) -> list[tuple[int, int]]:
    """(offset, length) of what is not zeros, in order; each begins at a block, and ends at one or with the file.

    A file of 200 KiB with one letter at 70,000 has the piece (65536, 65536).
    """
    found: list[tuple[int, int]] = []
    offset = 0
    while (offset := _next_data(fd, offset, size_bytes)) < size_bytes:
        data = os.pread(fd, BLOCK_BYTES, offset)
        if data != _ZEROS[: len(data)]:
            _add(found, offset, len(data))
        offset += BLOCK_BYTES
    return found


def _next_data(fd: int, offset: int, size_bytes: int) -> int:
    """The block with the next data at or after `offset`."""
    if offset >= size_bytes:
        return size_bytes
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size_bytes
        if error.errno == errno.EINVAL:  # a file system that knows no holes
            return offset
        raise


def _add(found: list[tuple[int, int]], offset: int, length: int) -> None:
    if found and sum(found[-1]) == offset:
        found[-1] = (found[-1][0], found[-1][1] + length)
    else:
        found.append((offset, length))

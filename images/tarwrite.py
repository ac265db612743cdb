"""Write tar archives that are the same bytes everywhere: PAX format, root's, fixed times unless told otherwise.

The rule: the caller decides the order; nothing here looks at a clock or at the names of users.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from typing import BinaryIO

from images import errors, streams


def write_member(sink: streams.Sink, info: tarfile.TarInfo) -> None:
    """A member without content."""
    sink.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def write_file(sink: streams.Sink, info: tarfile.TarInfo, file: BinaryIO) -> None:
    """A regular file with everything that `file` holds; sets the size."""
    info.size = file.seek(0, os.SEEK_END)
    write_member(sink, info)
    _copy(sink, info, file, 0, info.size)
    sink.write(bytes(-info.size % tarfile.BLOCKSIZE))


def write_sparse(
    sink: streams.Sink, info: tarfile.TarInfo, file: BinaryIO, pieces: Sequence[tuple[int, int]], size_bytes: int
) -> None:
    """A file of which only `pieces`, (offset, length) in order, are not zeros: PAX format 1.0 of GNU tar's manual.

    The map stands before the content, as lines of decimal numbers: how many pieces, then each offset and length.
    """
    # GNU tar wants the end of the file to be in it, too.
    listed = "".join(f"{offset}\n{length}\n" for offset, length in (*pieces, (size_bytes, 0)))
    map_ = f"{len(pieces) + 1}\n{listed}".encode()
    map_ += bytes(-len(map_) % tarfile.BLOCKSIZE)
    told = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": info.name}
    info.pax_headers = {**info.pax_headers, **told, "GNU.sparse.realsize": str(size_bytes)}
    info.size = len(map_) + sum(length for _, length in pieces)
    write_member(sink, info)
    sink.write(map_)
    for offset, length in pieces:
        _copy(sink, info, file, offset, length)
    sink.write(bytes(-info.size % tarfile.BLOCKSIZE))


def _copy(sink: streams.Sink, info: tarfile.TarInfo, file: BinaryIO, offset: int, left: int) -> None:
    file.seek(offset)
    while left and (data := file.read(min(left, streams.CHUNK_BYTES))):
        sink.write(data)
        left -= len(data)
    if left:
        raise errors.InvalidImage(f"entry {info.name!r}: the file shrank while it was read; try again")


def write_bytes(sink: streams.Sink, name: str, data: bytes) -> None:
    write_file(sink, tarfile.TarInfo(name), io.BytesIO(data))


def write_end(sink: streams.Sink) -> None:
    sink.write(bytes(2 * tarfile.BLOCKSIZE))

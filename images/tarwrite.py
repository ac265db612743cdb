"""Write tar archives that are the same bytes everywhere: PAX format, root's, fixed times unless told otherwise.

The rule: the caller decides the order; nothing here looks at a clock or at the names of users.
"""

from __future__ import annotations

import io
import os
import tarfile
from typing import BinaryIO

from images import errors, streams


def write_member(sink: streams.Sink, info: tarfile.TarInfo) -> None:
    """A member without content."""
    sink.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def write_file(sink: streams.Sink, info: tarfile.TarInfo, file: BinaryIO) -> None:
    """A regular file with everything that `file` holds; sets the size."""
    info.size = left = file.seek(0, os.SEEK_END)
    file.seek(0)
    write_member(sink, info)
    while left and (data := file.read(min(left, streams.CHUNK_BYTES))):
        sink.write(data)
        left -= len(data)
    if left:
        raise errors.InvalidImage(f"entry {info.name!r}: the file shrank while it was read; try again")
    sink.write(bytes(-info.size % tarfile.BLOCKSIZE))


def write_bytes(sink: streams.Sink, name: str, data: bytes) -> None:
    write_file(sink, tarfile.TarInfo(name), io.BytesIO(data))


def write_end(sink: streams.Sink) -> None:
    sink.write(bytes(2 * tarfile.BLOCKSIZE))

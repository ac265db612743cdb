"""Where a daemon's log goes. Its one rule: a log that cannot be written ends no program.

The disk that is full is the disk that the log is on. An exception out of a log line would come up in the middle of
whatever had something to say, and a daemon that ends for that leaves what it cares for to nobody.
"""

import contextlib
import io
import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def lossy(stream: TextIO) -> TextIO:
    """A stream to the same file that takes everything, and loses what the file does not take."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Lossy(stream.fileno())), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


class _Lossy(io.RawIOBase):
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        with contextlib.suppress(OSError):
            return os.write(self._descriptor, data)
        return len(memoryview(data))

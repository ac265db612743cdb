"""A container's output as a log file in the CRI format, with rotation.

    2026-01-02T03:04:05.123456789Z stdout F a whole line
    2026-01-02T03:04:05.123456789Z stderr P the first 16 KiB of a longer line

`P` says that the line goes on in the stream's next record, `F` that it ends here. Rules: a record is never torn by
a rotation; memory is bounded by one partial line a stream; when the disk is full the container goes on, what did
not fit is counted, and the count is written as soon as there is space again.
"""

import contextlib
import os
import time
from typing import Final

MAX_LINE_BYTES: Final = 16 * 1024


def timestamp(now_ns: int) -> bytes:
    """RFC 3339 with nanoseconds, in UTC."""
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanoseconds


def numbered(path: str, number: int) -> str:
    """The name of a file that was rotated out."""
    return f"{path}.{number:08d}"


def rotated(path: str) -> list[int]:
    """The numbers of the files that were rotated out and are still there, oldest first."""
    folder, name = os.path.split(path)
    found = (entry.removeprefix(f"{name}.") for entry in os.listdir(folder or ".") if entry.startswith(f"{name}."))
    return sorted(int(number) for number in found if number.isdecimal())


class LineSplitter:
    """Turns one stream's chunks into records."""

    def __init__(self, stream: str) -> None:
        self._stream = stream.encode()
        self._rest = b""

    def records(self, chunk: bytes, now_ns: int) -> bytes:
        """The records that this chunk completes; all of one chunk carry its time."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        head = timestamp(now_ns) + b" " + self._stream
        full, part = head + b" F ", head + b" P "
        out: list[bytes] = []
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                line = _split_off(line, part, out, keep=1)  # noqa: PLW2901 - what is left of the line
            out += (full, line, b"\n")
        self._rest = _split_off(self._rest, part, out, keep=0)
        return b"".join(out)

    def finish(self, now_ns: int) -> bytes:
        """The last line when it has no end; it is closed, or it would swallow what a restart writes."""
        if not self._rest:
            return b""
        line, self._rest = self._rest, b""
        return timestamp(now_ns) + b" " + self._stream + b" F " + line + b"\n"


def _split_off(line: bytes, part: bytes, out: list[bytes], *, keep: int) -> bytes:
    """Move whole pieces of a long line to `out`; at least `keep` bytes stay for the record that ends it."""
    start = 0
    while len(line) - start >= MAX_LINE_BYTES + keep:
        out += (part, line[start : start + MAX_LINE_BYTES], b"\n")
        start += MAX_LINE_BYTES
    return line[start:]


class LogFile:
    """The file that records go to: `path`, and `path.00000001` and so on, newest last, for what was rotated out.

    A rotated file keeps its name until it is removed, so that a reader that knows a number knows what comes after it.
    """

    def __init__(self, path: str, *, max_bytes: int, max_files: int) -> None:
        assert max_bytes > 0, max_bytes
        assert max_files >= 1, max_files
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._lost_bytes = 0
        self.lost_bytes_total = 0
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, records: bytes) -> None:
        """Append whole records; rotates between two of them."""
        if self._lost_bytes and not self._append(self._note_of_loss()):
            self._lose(len(records))
            return
        while records:
            room = self._max_bytes - self._size
            if len(records) <= room:
                self._append_or_lose(records)
                return
            # The file is filled up to the last whole record that fits; an empty file takes one record anyhow.
            end = records.rfind(b"\n", 0, max(room, 0)) + 1
            if not end and not self._size:
                end = records.index(b"\n") + 1
            if end:
                self._append_or_lose(records[:end])
                records = records[end:]
            if records and not self._rotate():
                self._append_or_lose(records)
                return

    def _append_or_lose(self, records: bytes) -> None:
        if not self._append(records):
            self._lose(len(records))

    def _lose(self, size: int) -> None:
        self._lost_bytes += size
        self.lost_bytes_total += size

    def _append(self, records: bytes) -> bool:
        """Write it all or nothing: a torn record would spoil its neighbours."""
        start = self._size
        view = memoryview(records)
        try:
            while view:
                written = os.write(self._fd, view)
                view = view[written:]
                self._size += written
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, start)
            self._size = start
            return False
        self._lost_bytes = 0
        return True

    def _note_of_loss(self) -> bytes:
        text = b" stderr F [%d bytes of output were lost: the log could not be written]\n" % self._lost_bytes
        return timestamp(time.time_ns()) + text

    def _rotate(self) -> bool:
        """Rename; a reader that has the file open goes on reading it and finds the new one by the next number.

        False when that is impossible, as on a full disk: then the old file goes on.
        """
        old = self._fd
        try:
            numbers = rotated(self._path)
            with contextlib.suppress(FileNotFoundError):  # renamed already, by a rotation that then found no space
                os.rename(self._path, numbered(self._path, numbers[-1] + 1 if numbers else 1))
            self._open()
            self._remove_oldest()
        except OSError:
            return False
        finally:
            if self._fd != old:
                os.close(old)
        return True

    def _remove_oldest(self) -> None:
        numbers = rotated(self._path)
        for number in numbers[: max(len(numbers) - (self._max_files - 1), 0)]:
            os.unlink(numbered(self._path, number))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

"""The output of this node's containers, read from the files that the monitors write.

    2026-01-02T03:04:05.123456789Z stdout F a whole line
    2026-01-02T03:04:05.123456789Z stderr P the first 16 KiB of a longer line

`log` is the newest file; what was rotated out is `log.00000001` and so on, in order, and keeps its name. A reader holds
a file open and knows its number, or its inode while it has none: no rotation makes it lose or repeat a line.
"""

import functools
import itertools
import os
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agent.adapters.inotify import FolderWatch
from agent.adapters.layout import Layout
from agent.errors import NoSuchTask
from protos.orch.v1 import control_pb2 as cpb
from runtime import logs

if TYPE_CHECKING:
    import asyncio

BATCH_LINES = 500
READ_BYTES = 128 * 1024

_STREAMS = {b"stdout": cpb.LOG_STREAM_STDOUT, b"stderr": cpb.LOG_STREAM_STDERR}


class FileLogs:
    """Logs below the agent's folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def read(
        self, container_id: str, *, tail: int, since_ms: int, until: "asyncio.Future[None] | None"
    ) -> AsyncGenerator[list[cpb.LogLine], None]:
        """See `ports.Logs`."""
        path = self._layout.log(container_id)
        if not _folder_is_there(path):
            raise NoSuchTask(f"{container_id} has no log on this node")
        with FolderWatch(path.parent) as watch, _Follower(path) as follower:
            follower.skip_to_last(tail)
            while True:
                # Looked at before reading: what was written until then is read even if the task ends meanwhile.
                last_round = until is None or until.done()
                for lines in _batches(follower.records(), container_id, since_ms * 1_000_000):
                    yield lines
                if last_round or until is None:
                    return
                await watch.changed(until)


class _Follower:
    """Reads the records of a rotated log, from the oldest file to the newest, and goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""
        self._number: int | None = None  # while the newest is open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def skip_to_last(self, count: int) -> None:
        """Begin `count` records before the end; at the beginning when `count` is negative."""
        if count < 0:
            return
        self._open(None)
        older = logs.rotated(str(self._path))
        if self._fd >= 0:
            count -= _seek_back(self._fd, count)
            # Rotated since it was opened: what is older than it begins before its number.
            self._number = self._find_own(older)
            older = older[: older.index(self._number)] if self._number is not None else older
        while count > 0 and older:
            if self._open(older.pop()):
                count -= _seek_back(self._fd, count)

    def records(self) -> Iterator[bytes]:
        """Every whole record that is there now."""
        if self._fd < 0:
            self._open_next(0)
        while self._fd >= 0:
            yield from self._drain()
            if not self._is_rotated():
                return
            # It gets no more records, but it may have got some since.
            yield from self._drain()
            if not self._open_next(self._number or 0):
                return

    def _drain(self) -> Iterator[bytes]:
        while chunk := os.read(self._fd, READ_BYTES):
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()
            yield from lines

    def _is_rotated(self) -> bool:
        """Whether the open file is the newest no more. Its number is found then, unless it has been removed."""
        if self._number is None and _inode(self._path) != os.fstat(self._fd).st_ino:
            self._number = self._find_own(logs.rotated(str(self._path))) or 0
        return self._number is not None

    def _find_own(self, numbers: list[int]) -> int | None:
        """The number of the open file. A name is given once, so whoever looks after the rotation finds it."""
        mine = os.fstat(self._fd).st_ino
        return next((number for number in reversed(numbers) if _inode(self._named(number)) == mine), None)

    def _open_next(self, after: int) -> bool:
        """Open what follows a number: the next file that is there, else the newest. False when there is none."""
        while True:
            following = [number for number in logs.rotated(str(self._path)) if number > after]
            if following:
                if self._open(following[0]):
                    return True
                continue  # removed at this very moment
            if not self._open(None):
                return False  # missing for an instant in each rotation; its return wakes a follower
            if not any(number > after for number in logs.rotated(str(self._path))):
                return True
            # There was a rotation, or several, before it was opened: what came first is looked at first.

    def _open(self, number: int | None) -> bool:
        """Open a rotated file, or (None) the newest; False when it is not there."""
        try:
            fd = os.open(self._path if number is None else self._named(number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._rest, self._number = fd, b"", number
        return True

    def _named(self, number: int) -> Path:
        return Path(logs.numbered(str(self._path), number))


def parse(record: bytes, task_id: str) -> cpb.LogLine | None:
    """A record as a line; None when it is none, such as what a full disk has cut."""
    parts = record.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _STREAMS:
        return None
    stamp, stream, flag, text = parts
    try:
        time_ns = _second(stamp[:19]) * 1_000_000_000 + int(stamp[20:29])
    except ValueError:
        return None
    return cpb.LogLine(task=task_id, time_ns=time_ns, stream=_STREAMS[stream], text=text, partial=flag == b"P")


@functools.lru_cache(maxsize=64)
def _second(text: bytes) -> int:
    return int(datetime.fromisoformat(text.decode()).replace(tzinfo=UTC).timestamp())


def _batches(records: Iterator[bytes], task_id: str, since_ns: int) -> Iterator[list[cpb.LogLine]]:
    lines = (line for record in records if (line := parse(record, task_id)) and line.time_ns >= since_ns)
    while batch := list(itertools.islice(lines, BATCH_LINES)):
        yield batch


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _seek_back(fd: int, count: int) -> int:
    """Put the file's position `count` records before its end, or at its beginning; how many records follow it."""
    position = end = os.fstat(fd).st_size
    seen = 0
    while position > 0:
        size = min(READ_BYTES, position)
        position -= size
        block = os.pread(fd, size, position)
        for offset in range(size - 1, -1, -1):
            if block[offset] == 0x0A and position + offset != end - 1:
                seen += 1
                if seen == count:
                    os.lseek(fd, position + offset + 1, os.SEEK_SET)
                    return count
    if count == 0:
        os.lseek(fd, end, os.SEEK_SET)
        return 0
    os.lseek(fd, 0, os.SEEK_SET)
    return seen + (1 if end else 0)


def _folder_is_there(path: Path) -> bool:
    return path.parent.is_dir()

"""The output of this node's containers, read from the files that the monitors write.

    2026-01-02T03:04:05.123456789Z stdout F a whole line
    2026-01-02T03:04:05.123456789Z stderr P the first 16 KiB of a longer line

`log` is the newest file, `log.1` and so on are older. A reader holds a file open and knows it by its inode, so that a
rotation under its hands loses and repeats nothing.
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

if TYPE_CHECKING:
    import asyncio

MAX_FILES = 1000
BATCH_LINES = 500
READ_BYTES = 128 * 1024

_STREAMS = {b"stdout": cpb.LOG_STREAM_STDOUT, b"stderr": cpb.LOG_STREAM_STDERR}


class FileLogs:
    """Logs below the agent's folder."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def read(
        self, task_id: str, *, tail: int, since_ms: int, until: "asyncio.Future[None] | None"
    ) -> AsyncGenerator[list[cpb.LogLine], None]:
        """See `ports.Logs`."""
        path = self._layout.log(task_id)
        if not _folder_is_there(path):
            raise NoSuchTask(f"task {task_id} has no log on this node")
        with FolderWatch(path.parent) as watch, _Follower(path) as follower:
            follower.skip_to_last(tail)
            while True:
                # Looked at before reading: what was written until then is read even if the task ends meanwhile.
                last_round = until is None or until.done()
                for lines in _batches(follower.records(), task_id, since_ms * 1_000_000):
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def skip_to_last(self, count: int) -> None:
        """Begin `count` records before the end; at the beginning when `count` is negative."""
        if count < 0:
            return
        for path in _files(self._path)[::-1]:
            self._open(path)
            found = _seek_back(self._fd, count)
            count -= found
            if count <= 0:
                return

    def records(self) -> Iterator[bytes]:
        """Every whole record that is there now."""
        while True:
            yield from self._drain()
            following = self._next_file()
            if following is None:
                return
            # A file that has a newer one after it gets no more records, but it may have got some since.
            yield from self._drain()
            self._open(following)

    def _drain(self) -> Iterator[bytes]:
        while self._fd >= 0 and (chunk := os.read(self._fd, READ_BYTES)):
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()
            yield from lines

    def _next_file(self) -> Path | None:
        """The file after the one that is open, which only ever moves away from the newest name."""
        files = _files(self._path)
        if self._fd < 0:
            return files[0] if files else None
        mine = os.fstat(self._fd).st_ino
        numbers = [_inode(path) for path in files]
        if mine in numbers:
            position = numbers.index(mine) + 1
            return files[position] if position < len(files) else None
        return files[0] if files else None  # it was rotated out of existence, and so was everything before it

    def _open(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # rotated at this very moment; the next look finds it under its new name
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._rest = fd, b""


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


def _files(path: Path) -> list[Path]:
    """The log's files, oldest first."""
    found = []
    for number in range(MAX_FILES):
        candidate = path.with_name(f"{path.name}.{number}") if number else path
        if not candidate.exists():
            # The newest name is missing for an instant in each rotation.
            if number:
                break
            continue
        found.append(candidate)
    return found[::-1]


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

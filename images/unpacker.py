"""The process that unpacks one layer, with the target folder as its root. Started by `images.unpack`, never by hand.

Two rules. Everything is imported before the chroot, and the import system is then switched off: nothing that the
layer brings can be loaded. And there are no look-ups of user names; numbers are taken as they are.

The job comes as JSON in the first argument, the outcome goes as JSON to standard output.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any

from images import compression, errors, extract, streams, tarstream
from runtime import syscalls

_AHEAD = 8  # pieces of at most CHUNK_BYTES between the two threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to unpack: open descriptors, what the bytes must be, and how far they may grow."""

    what: str
    blob_fd: int
    target_fd: int
    diff_id: str
    limits: compression.Limits
    parent_pid: int
    library: str = ""
    """Where Python's packages are, for a layer that needs one to be read."""

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was unpacked, or the class and the message of the error that stopped it."""

    size_bytes: int = 0
    entries: int = 0
    error: str = ""
    message: str = ""


def load_job(text: str) -> Job:
    fields = json.loads(text)
    return Job(**{**fields, "limits": compression.Limits(**fields["limits"])})


class _Ahead:
    """Decompress and digest in a second thread (zlib and hashlib release the interpreter) while this one writes."""

    def __init__(self, source: streams.Source) -> None:
        self._source = source
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(maxsize=_AHEAD)
        self._rest = memoryview(b"")
        self._ended = False
        # A daemon: when writing fails the process ends without waiting for it.
        threading.Thread(target=self._run, name="decompress", daemon=True).start()

    def _run(self) -> None:
        try:
            while data := self._source.read(streams.CHUNK_BYTES):
                self._queue.put(data)
            self._queue.put(b"")
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads
            self._queue.put(error)

    def read(self, size: int, /) -> bytes:
        if not self._rest and not self._ended:
            piece = self._queue.get()
            if isinstance(piece, BaseException):
                self._ended = True
                raise piece
            self._ended = not piece
            self._rest = memoryview(piece)
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return data


def unpack(job: Job) -> Outcome:
    """Extract the layer below the current root and compare its digest."""
    with os.fdopen(job.blob_fd, "rb", buffering=0, closefd=False) as blob:
        meter = compression.Meter(
            compression.reader(blob, what=job.what),
            stored_bytes=os.fstat(job.blob_fd).st_size,
            limits=job.limits,
            what=job.what,
        )
        reader = tarstream.TarReader(_Ahead(meter), what=job.what, max_entries=job.limits.max_entries)
        with extract.Extractor(job.target_fd, limits=job.limits, what=job.what) as extractor:
            extractor.apply(reader)
        reader.drain()
    meter.check(job.diff_id)
    return Outcome(size_bytes=meter.size_bytes, entries=reader.entries)


def prepare(job: Job) -> None:
    """Import what this layer's compression needs; behind Python's own modules, so that nothing hides those."""
    with os.fdopen(job.blob_fd, "rb", buffering=0, closefd=False) as blob:
        kind = compression.peek(blob, what=job.what)
    if kind == "zstd":
        sys.path.append(job.library)
        importlib.import_module("images.zstd")


def enter(job: Job) -> None:
    """Make the target the root of this process, and close the ways out of it."""
    syscalls.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != job.parent_pid:
        os._exit(1)  # it died before the line above
    os.umask(0)
    os.fchdir(job.target_fd)
    os.chroot(".")
    sys.meta_path.clear()
    sys.path.clear()


def run(job: Job) -> Outcome:
    try:
        prepare(job)
        enter(job)
    except errors.ImageError as error:
        return Outcome(error=type(error).__name__, message=str(error))
    except OSError as error:
        return Outcome(error=errors.StorageFailed.__name__, message=f"{job.what}: {error}; unpacking needs root")
    try:
        return unpack(job)
    except errors.ImageError as error:
        return Outcome(error=type(error).__name__, message=str(error))
    except (OSError, MemoryError) as error:
        return Outcome(error=errors.StorageFailed.__name__, message=f"{job.what}: {error}")


def main() -> None:
    outcome: dict[str, Any] = dataclasses.asdict(run(load_job(sys.argv[1])))
    os.write(1, json.dumps(outcome).encode())
    # Not `sys.exit`: the second thread may be in the middle of a read, and there is nothing to tidy up.
    os._exit(0)


if __name__ == "__main__":
    main()

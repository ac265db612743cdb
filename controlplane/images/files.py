"""Files that threads work on while the event loop goes on.

Two rules. Nothing blocks the event loop: files are touched by a few threads of this module's own. And a file is closed
by the thread that used it last, since a call that is cancelled leaves its thread at work.
"""

import asyncio
import contextlib
import io
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")


class Shared:
    """A file that one thread at a time uses, so that it is never closed under another's hands."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.lock = threading.Lock()

    def read(self, size_bytes: int) -> bytes:
        with self.lock:
            return self.file.read(size_bytes)

    def write(self, data: bytes) -> None:
        with self.lock:
            self.file.write(data)

    def seek(self, offset: int) -> None:
        """To there, or to the end when it lies behind that: no file system goes as far as an offset may."""
        with self.lock:
            self.file.seek(min(offset, self.file.seek(0, os.SEEK_END)))

    def close(self) -> None:
        with self.lock:
            self.file.close()


class Upload(Shared):
    """A file without a name on the disk, so that a crash leaves nothing; errors call it by `title`.

    It is opened in a thread while its owner may be cancelled; closed before that, it is never opened.
    """

    def __init__(self, folder: Path, title: str) -> None:
        super().__init__(io.BytesIO())
        self._folder = folder
        self._title = title

    def open(self) -> None:
        with self.lock:
            if self.file.closed:
                return
            number, path = tempfile.mkstemp(dir=self._folder, prefix="upload-")
            Path(path).unlink(missing_ok=True)  # a sweep of the store may have been faster
            self.file = os.fdopen(number, "w+b")
            self.file.raw.name = self._title  # type: ignore[attr-defined]  # what `file.name` shows


class Threads:
    """The threads, and the files that they still have to close."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="images")
        self._open: set[Shared] = set()

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    @contextlib.contextmanager
    def closing(self, file: Shared) -> Iterator[None]:
        """The file is closed by a thread some time after the block, or by `close`."""
        self._open.add(file)
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # the threads have ended: `close` is at it
                self._pool.submit(self._finish, file)

    async def close(self) -> None:
        """Waits for what the threads are doing."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        for file in self._open.copy():
            self._finish(file)

    def _finish(self, file: Shared) -> None:
        file.close()
        self._open.discard(file)

"""inotify(7) for an event loop: wait until something in a folder has changed."""

import asyncio
import ctypes
import os
from pathlib import Path
from typing import Self

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE_SELF = 0x2, 0x40, 0x80, 0x100, 0x400
IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_EVENTS = IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF
_READ_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Watches from its creation on: a change between two waits is seen by the second."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = _checked(_libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC), "inotify_init1")
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(folder), _EVENTS), f"inotify_add_watch {folder}")
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    async def changed(self, until: "asyncio.Future[None]") -> None:
        """Return once something has changed, or `until` is done."""
        ready: asyncio.Future[None] = self._loop.create_future()

        def readable() -> None:
            self._loop.remove_reader(self._fd)
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(self._fd, readable)
        try:
            await asyncio.wait({ready, until}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._loop.remove_reader(self._fd)
        if ready.done():
            os.read(self._fd, _READ_BYTES)


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result

"""Locks between processes, on files, that end with their holder.

flock(2): the kernel drops the lock when the last descriptor is closed, so `kill -9` of a holder frees it. The rule:
every wait has a bound, after which the caller gets `Busy` with the name of what was locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from images import disk, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# flock has no timeout of its own; between two attempts the waiter sleeps this long.
_RETRY_S = 0.01


@contextlib.contextmanager
def held(path: Path, *, shared: bool = False, timeout_s: float, what: str) -> Iterator[int]:
    """Hold a lock on `path` (made when missing) while the block runs; yields its descriptor."""
    with disk.storage_errors(f"opening the lock of {what}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        wait(fd, shared=shared, timeout_s=timeout_s, what=what)
        yield fd
    finally:
        os.close(fd)


def wait(fd: int, *, shared: bool, timeout_s: float, what: str, check: Callable[[], None] = lambda: None) -> None:
    """Lock an open file or folder. `check` is asked while waiting: what it raises ends the wait."""
    deadline = time.monotonic() + timeout_s
    while not attempt(fd, shared=shared):
        check()
        if time.monotonic() >= deadline:
            raise errors.Busy(f"{what} is held by another process for more than {timeout_s:g} s; try again later")
        time.sleep(_RETRY_S)


def attempt(fd: int, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""One download of a blob at a time, among all tasks and processes that share a store.

A lock file for each blob, `locks/blob-HEX`, with flock(2), which ends with its holder. Whoever comes second waits and
then finds the blob. The file is removed by its holder, so that no store fills with them; a waiter that then holds the
lock of a removed file starts over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

from images import digest as digests
from images import disk, errors, locks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from images.store import ImageStore

TIMEOUT_S = 3600.0
# Two pulls at once wait for little; who waits for minutes looks once a second.
_FIRST_RETRY_S = 0.02
_LONGEST_RETRY_S = 1.0


@contextlib.asynccontextmanager
async def taken(store: ImageStore, digest: str, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator[None]:
    """Hold the lock of a blob while the block runs. `Busy` when somebody else holds it for longer than the timeout."""
    path = store.root / "locks" / f"blob-{digests.hex_of(digest)}"
    deadline = time.monotonic() + timeout_s
    delay_s = _FIRST_RETRY_S
    while (fd := _attempt(path)) is None:
        if time.monotonic() >= deadline:
            raise errors.Busy(f"blob {digest} is fetched by another process for more than {timeout_s:g} s; try later")
        await asyncio.sleep(delay_s)
        delay_s = min(_LONGEST_RETRY_S, 1.3 * delay_s)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _attempt(path: Path) -> int | None:
    with disk.storage_errors(f"opening the lock {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if locks.attempt(fd) and _is_there(path, fd):
        return fd
    os.close(fd)
    return None


def _is_there(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False

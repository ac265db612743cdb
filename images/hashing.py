"""sha256 beside other work: hashlib releases the interpreter, so a second processor digests while the first one moves.

The rule: at most one piece is on its way. The next one waits for it, so order and memory take care of themselves.
"""

from __future__ import annotations

import hashlib
import os
from concurrent import futures

from images import digest as digests

_WORTHWHILE_BYTES = 256 << 10  # below, handing over costs more than it saves


class _Pool:
    """Threads that are made when first needed, and anew in a process that was forked off: threads do not come along."""

    def __init__(self) -> None:
        self._executor: futures.ThreadPoolExecutor | None = None
        os.register_at_fork(after_in_child=self._forget)

    def submit(self, work: hashlib._Hash, data: bytes) -> futures.Future[None]:
        if self._executor is None:
            self._executor = futures.ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="sha256")
        return self._executor.submit(work.update, data)

    def _forget(self) -> None:
        self._executor = None


_POOL = _Pool()


class Sha256:
    """A digest that grows in the background."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last: futures.Future[None] | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Append bytes; they are copied unless nobody can change them."""
        self._settle()
        if len(data) < _WORTHWHILE_BYTES:
            self._hash.update(data)
        else:
            self._last = _POOL.submit(self._hash, bytes(data))

    @property
    def digest(self) -> str:
        """Of all that was appended."""
        self._settle()
        return digests.PREFIX + self._hash.hexdigest()

    def _settle(self) -> None:
        if self._last is not None:
            self._last.result()
            self._last = None

"""How far a piece of work on an image is, for whoever shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from images import streams


class Progress(Protocol):
    """Told by whatever moves bytes; any thread may call it, and it must not block."""

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        """`doing` is one word such as `downloading`, `unpacking`, `done` or `exists`; a total of None is not known."""


class Silent:
    """For whom nobody watches."""

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        """Nobody is told."""


class Counted:
    """A source that tells how much of it was read."""

    def __init__(
        self, source: streams.Source, watcher: Progress, digest: str, doing: str, total_bytes: int | None
    ) -> None:
        self._source = source
        self._watcher = watcher
        self._digest = digest
        self._doing = doing
        self._total_bytes = total_bytes
        self._done_bytes = 0
        watcher.step(digest, doing, 0, total_bytes)

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        if data:
            self._done_bytes += len(data)
            self._watcher.step(self._digest, self._doing, self._done_bytes, self._total_bytes)
        return data

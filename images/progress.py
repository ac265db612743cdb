"""How far a piece of work on an image is, for whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by whatever moves bytes; any thread may call it, and it must not block."""

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        """`doing` is one word such as `downloading`, `unpacking`, `done` or `exists`; a total of None is not known."""


class Silent:
    """For whom nobody watches."""

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        """Nobody is told."""

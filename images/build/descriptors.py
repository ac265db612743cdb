"""Descriptors that are closed when a block ends."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Yields the descriptor."""
    try:
        yield fd
    finally:
        os.close(fd)

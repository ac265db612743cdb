"""Descriptors of files and folders: closed when a block ends, and listed in an order that is the same everywhere."""

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


def names(folder: int) -> list[str]:
    """The names in a folder, in the order of their bytes."""
    return sorted(os.listdir(folder), key=os.fsencode)

"""What the file system below a store says, as errors of ours.

The rule: whoever opens, writes or locks a file of a store does it inside `storage_errors`, so that a full, damaged or
read-only disk is one clear error to whoever asked for an image, and never the end of a program.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from images import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn what the disk says into `StorageFailed`, with what was being done."""
    try:
        yield
    except OSError as error:
        raise errors.StorageFailed(f"{what} failed: {error.strerror or error}; check the disk") from error


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take; those that go meanwhile, nothing. Blocks. Raises OSError."""
    return sum(map(_size_bytes, folder.iterdir()))


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

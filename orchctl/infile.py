"""Where the bytes that a verb reads come from: a file, a folder, or standard input."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchctl import errors


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO | Path]:
    """What `images.archive` takes: standard input for `-`, which may not be a terminal; else the path."""
    if path != "-":
        yield Path(path)
        return
    if sys.stdin.isatty():
        raise errors.InvalidInput("standard input is a terminal", hint="such as `docker save hello | orchctl …`")
    with sys.stdin.buffer as file:
        yield file

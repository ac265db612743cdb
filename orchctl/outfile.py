"""Where the bytes that a verb makes go: a file, which appears only once it is whole, or a pipe; never a terminal."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchctl import errors


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The file of that name, or standard output for `-`. A file that is there already is replaced at the end."""
    if path == "-":
        if sys.stdout.isatty():
            raise errors.InvalidInput("standard output is a terminal", hint="name a file with -o, or pipe it on")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with _replacing(Path(path)) as file:
        yield file


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    if path.exists() and not path.is_file():
        # A device or a named pipe is written to as it is: nothing can take its place.
        with _told(path), path.open("wb") as file:
            yield file
        return
    work = path.parent / f".{path.name[:200]}.{secrets.token_hex(4)}"
    with _told(path):
        try:
            with work.open("xb") as file:
                yield file
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.OrchctlError(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error

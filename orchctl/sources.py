"""The files behind `-f`: single files, folders with everything below them, and `-` for standard input."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from manifests import Unloadable
from manifests.checks import MAX_TEXT_BYTES
from manifests.documents import Source
from orchctl.errors import InvalidInput

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "<stdin>"
ENDINGS = frozenset({".yaml", ".yml"})
MAX_FILE_BYTES = 16 << 20
"""More is not read into memory. What a manifest may have is for `manifests` to say, which allows less."""


def read(paths: Sequence[str]) -> list[Source]:
    """The text of every file, in the order that was asked for; the files of a folder sorted."""
    if paths.count(STANDARD_INPUT) > 1:
        raise InvalidInput("standard input (`-f -`) can be read once only")
    return [_read_one(path) for path in _files(paths)]


def load(manifest: str, path: str) -> str:
    """The text of a file that a manifest names, relative to the manifest's folder. Raises Unloadable."""
    # A manifest from standard input has no folder: its paths are relative to where the command is given.
    above = "" if manifest == STANDARD_INPUT_NAME else os.path.dirname(manifest)  # noqa: PTH120 - keeps `./`
    file = os.path.join(above, path)  # noqa: PTH118
    try:
        with open(file, "rb", opener=_without_waiting) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise Unloadable(f"{file} is not a file")
            text = opened.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise Unloadable(f"cannot read {file}: {error.strerror}", "paths are relative to the manifest") from error
    if len(text) > MAX_TEXT_BYTES:
        raise Unloadable(f"{file} is larger than {MAX_TEXT_BYTES} bytes", "shorten it")
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Unloadable(f"{file} is not a text in UTF-8: byte {error.start} is not") from error


def _without_waiting(path: str, flags: int) -> int:
    """Opening a pipe that nobody writes to would wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _files(paths: Iterable[str]) -> Iterator[str]:
    seen = set()
    for path in paths:
        for file in _in_folder(path) if path != STANDARD_INPUT and Path(path).is_dir() else [path]:
            if file not in seen:
                seen.add(file)
                yield file


def _in_folder(folder: str) -> list[str]:
    """Every manifest below the folder; hidden folders are somebody else's."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(parent, name) for name in files if _is_manifest(name)]  # noqa: PTH118 - keeps `./`
    if not found:
        raise InvalidInput(f"{folder}: no manifest in this folder", hint="manifests end in .yaml or .yml")
    return sorted(found)


def _is_manifest(name: str) -> bool:
    return Path(name).suffix in ENDINGS and not name.startswith(".")


def _read_one(path: str) -> Source:
    if path == STANDARD_INPUT:
        return Source(
            name=STANDARD_INPUT_NAME,
            text=_bounded(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), STANDARD_INPUT_NAME),
        )
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - `-f a//b` is named as it was written
            return Source(name=path, text=_bounded(file.read(MAX_FILE_BYTES + 1), path))
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error


def _bounded(text: bytes, name: str) -> bytes:
    if len(text) > MAX_FILE_BYTES:
        raise InvalidInput(f"{name}: larger than {MAX_FILE_BYTES >> 20} MiB", hint="split it into several files")
    return text

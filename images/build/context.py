"""The context of a build: a folder, or a tar that somebody sends, with its `.dockerignore` and its Dockerfile.

Rules. It is only read. What a tar holds is unpacked below the store's `tmp/`, with everything inside that folder and
links followed inside it only. The Dockerfile is read through the same door, so a link in its place leads nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from images import errors, scratch, streams
from images.build import archives, descriptors, ignore, sources, tree_writer, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from images.store import ImageStore

DOCKERFILE = "Dockerfile"
MAX_DOCKERFILE_BYTES = 1 << 20
MAX_TAR_BYTES = 20 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The files that COPY may take, and the text of the Dockerfile."""

    tree: sources.Tree
    dockerfile: bytes
    name: str


@contextlib.contextmanager
def folder(path: Path, *, dockerfile: str = "", text: bytes | None = None) -> Iterator[Context]:
    """A folder of this machine. `dockerfile` is a path as a person gives it, by default the one in the folder.

    `text` is that of a Dockerfile which is in no file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.NotFound(f"build context {path}: {error.strerror}; name a folder, or - for a tar") from error
    with descriptors.closing(fd):
        if text is not None:
            name, beside = "-", None
        elif dockerfile:
            text, name = _read_file(Path(dockerfile)), dockerfile
            beside = _maybe(lambda: _read_file(Path(f"{dockerfile}{ignore.NAME}")))
        else:
            text, name = _read(fd, DOCKERFILE, path), DOCKERFILE
            beside = _maybe(lambda: _read(fd, ignore.names(DOCKERFILE)[0], path))
        yield _context(fd, text, name, beside, title=f"build context {path}")


@contextlib.contextmanager
def archive(file: BinaryIO, store: ImageStore, *, dockerfile: str = "") -> Iterator[Context]:
    """A tar, plain or compressed, from a file or a pipe; `dockerfile` is a path in it. A lone Dockerfile will do."""
    with scratch.folder(store.tmp) as item, tempfile.TemporaryFile(dir=store.tmp) as spool:
        _spool(file, spool)
        root = os.open(item.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with descriptors.closing(root):
            name = dockerfile or DOCKERFILE
            if archives.is_archive(spool):
                writer = tree_writer.TreeWriter(root, what="build context")
                archives.unpack(spool, writer, "", owner=None, what="build context")
                writer.finish()
                text = _read(root, name, Path("-"))
            else:
                text, name = _lone(spool), "-"
            beside = _maybe(lambda: _read(root, ignore.names(name)[0], Path("-")))
            yield _context(root, text, name, beside, title="build context -")


def _context(fd: int, text: bytes, name: str, beside: bytes | None, *, title: str) -> Context:
    written = beside if beside is not None else _maybe(lambda: _read(fd, ignore.NAME, Path(title)))
    patterns = ignore.parse(written) if written else None
    return Context(
        tree=sources.Tree(fd=fd, title=title, keeps_owners=False, ignored=patterns), dockerfile=text, name=name
    )


def _spool(file: BinaryIO, spool: BinaryIO) -> None:
    size = 0
    while data := file.read(streams.CHUNK_BYTES):
        size += len(data)
        if size > MAX_TAR_BYTES:
            raise errors.LimitExceeded(f"build context -: larger than {MAX_TAR_BYTES} bytes")
        spool.write(data)
    spool.flush()
    spool.seek(0)


def _lone(spool: BinaryIO) -> bytes:
    """A Dockerfile instead of a tar: then there is nothing to copy from."""
    text = spool.read(MAX_DOCKERFILE_BYTES + 1)
    if len(text) > MAX_DOCKERFILE_BYTES or b"\0" in text:
        raise errors.InvalidImage("build context -: neither a tar nor a Dockerfile; send one of the two")
    return text


def _read(root: int, path: str, where: Path) -> bytes:
    """A small file of the context."""
    try:
        fd = views.locate(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise errors.NotFound(
            f"{where}/{path}: {os.strerror(error.errno or 0)}; name the Dockerfile with -f"
        ) from error
    return _bounded(fd, f"{where}/{path}")


def _read_file(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise errors.NotFound(f"{path}: {error.strerror}; name a Dockerfile that can be read") from error
    return _bounded(fd, str(path))


def _maybe(read: Callable[[], bytes]) -> bytes | None:
    """What is read, or None where nothing is; a file that cannot be read is an error."""
    try:
        return read()
    except errors.NotFound as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _bounded(fd: int, what: str) -> bytes:
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise errors.InvalidImage(f"{what}: is not a regular file")
        data = file.read(MAX_DOCKERFILE_BYTES + 1)
    if len(data) > MAX_DOCKERFILE_BYTES:
        raise errors.LimitExceeded(f"{what}: larger than {MAX_DOCKERFILE_BYTES} bytes")
    return data

"""What a container has changed, as the tar of a layer, while nothing in its writable folder is touched.

Rules. The folder belongs to whoever runs in it: it is read by descriptors alone, and no link of it is followed. What
the runtime has put there to mount things on is no change of the container's, and is left out; so is a folder that was
copied up for nothing more than that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from images.build import descriptors, layerdiff, mountpoints, views

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from images import streams

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_IN_THE_WAY = frozenset({errno.ENXIO, errno.ENODEV})
"""What opening the kernel's mark of a removed name says: it is a device that nobody drives."""


def write(upper: Path, below: Sequence[Path], sink: streams.Sink, *, places: Iterable[str] = ()) -> None:
    """Write the tar of what `upper` changes in the layers below it, bottom to top.

    `places`: absolute paths on which something was mounted. Raises `InvalidImage` and `LimitExceeded` for what cannot
    be in an image, with its path; OSError when the folder goes away meanwhile.
    """
    with contextlib.ExitStack() as opened:
        layers = [_opened(path, opened) for path in reversed(below)]
        fd = _opened(upper, opened)
        layerdiff.write(fd, sink, leave_out=_made(fd, layers, places))


def _opened(path: Path, stack: contextlib.ExitStack) -> int:
    return stack.enter_context(descriptors.closing(os.open(path, _FOLDER)))


def _made(upper: int, layers: Sequence[int], places: Iterable[str]) -> Collection[str]:
    """Paths that are in the folder only because something was mounted on them, or in them; those below come first."""
    found: set[str] = set()
    candidates = {path for place in places for path in _with_ancestors(place.strip("/"))}
    for path in sorted(candidates, key=lambda path: path.count("/"), reverse=True):
        if _only_serves_mounts(upper, path, layers, found):
            found.add(path)
    return found


def _with_ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = posixpath.dirname(path)


def _only_serves_mounts(upper: int, path: str, layers: Sequence[int], gone: Collection[str]) -> bool:
    with contextlib.ExitStack() as opened:
        fd = _located(upper, path, opened)
        if fd is None:
            return False
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            if any(f"{path}/{name}" not in gone for name in descriptors.names(fd)):
                return False
        elif not stat.S_ISREG(found.st_mode) or found.st_size:
            return False
        below = _below(layers, path, opened)
        if below is None:
            parent = _located(upper, posixpath.dirname(path), opened)
            return parent is not None and mountpoints.is_as_made(fd, parent)
        return stat.S_ISDIR(found.st_mode) and mountpoints.look_alike(fd, below)


def _below(layers: Sequence[int], path: str, stack: contextlib.ExitStack) -> int | None:
    """What the highest layer that has the path shows there, if anything."""
    for layer in layers:
        try:
            return stack.enter_context(descriptors.closing(views.locate_unfollowed(layer, path, _READ)))
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                return None
            if error.errno not in _NOT_THERE:
                raise
    return None


def _located(root: int, path: str, stack: contextlib.ExitStack) -> int | None:
    try:
        return stack.enter_context(descriptors.closing(views.locate_unfollowed(root, path, _READ)))
    except OSError as error:
        if error.errno not in _NOT_THERE | _IN_THE_WAY:
            raise
        return None

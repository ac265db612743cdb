"""Take away what only served to mount something on: the runtime makes missing places, and they would stay in the layer.

Rules. Only what was not there before the command is removed, and only while it is empty and looks as the runtime made
it: what the command gave another owner or mode, it wants to keep. Everything is done by descriptors inside the image's
own tree, so a link that the command left leads nowhere else. A folder that was copied up for nothing more than that
goes back to what it was below.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from images.build import descriptors, layerdiff, views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ALWAYS = ("/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts")
_EXPECTED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_MADE = {stat.S_IFDIR: 0o755, stat.S_IFREG: 0o644}
_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST}


def may_be_there(upper: int, path: str = "") -> bool:
    """Whether a writable layer has an empty file or folder at all: no place that was made to mount on has more.

    `path` is where the folder `upper` lies in the layer. `InvalidImage` for one that is too deep for an image.
    """
    names = descriptors.names(upper)
    for name in names:
        found = os.stat(name, dir_fd=upper, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_size == 0:
            return True
        if stat.S_ISDIR(found.st_mode):
            inner = f"{path}/{name}" if path else name
            layerdiff.check_length(inner)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper)
            with descriptors.closing(fd):
                if not descriptors.names(fd) or may_be_there(fd, inner):
                    return True
    return False


def remove_made(targets: Iterable[str], *, before: int, after: int) -> tuple[str, ...]:
    """Remove the targets from the tree `after` that the tree `before` does not have, with empty folders above them.

    Returns the folders in which something was removed, and those above: candidates for `put_back`.
    """
    touched: set[str] = set()
    for target in sorted(targets, key=lambda path: path.count("/"), reverse=True):
        path = _real(after, target)
        while path and not _exists(before, path) and _remove_empty(after, path):
            path = posixpath.dirname(path)
        touched.update(_ancestors(path))
    return tuple(sorted(touched, key=lambda path: path.count("/"), reverse=True))


def put_back(folders: Iterable[str], *, before: int, upper: int) -> None:
    """Drop folders from the writable layer that hold nothing and look as below, their time aside; deepest first."""
    for path in folders:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(upper, path) as mine:
            with _opened(before, path) as below:
                if descriptors.names(mine) or not look_alike(mine, below):
                    continue
                os.utime(mine, ns=(os.fstat(below).st_atime_ns, os.fstat(below).st_mtime_ns))
            if path:
                parent = posixpath.dirname(path)
                with _opened(upper, parent) as above:
                    times = os.fstat(above)
                    os.rmdir(posixpath.basename(path), dir_fd=above)
                    os.utime(above, ns=(times.st_atime_ns, times.st_mtime_ns))


def look_alike(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    same = (first.st_mode, first.st_uid, first.st_gid) == (second.st_mode, second.st_uid, second.st_gid)
    return same and not any(key == "trusted.overlay.opaque" for key in os.listxattr(one)) and _kept(one) == _kept(other)


def _kept(fd: int) -> dict[str, bytes]:
    names = (name for name in os.listxattr(fd) if name in layerdiff.KEPT_XATTRS or name.startswith("user."))
    return {name: os.getxattr(fd, name) for name in names}


def _real(root: int, path: str) -> str:
    try:
        return views.real_path(root, path)
    except OSError as error:
        if error.errno not in _EXPECTED:
            raise
        return ""


def _exists(root: int, path: str) -> bool:
    try:
        os.close(views.locate_unfollowed(root, path))
    except OSError as error:
        if error.errno not in _EXPECTED:
            raise
        return False
    return True


def _remove_empty(root: int, path: str) -> bool:
    """Whether an empty file or folder was there, and is gone now."""
    try:
        with _opened(root, posixpath.dirname(path)) as parent:
            return _remove_in(parent, posixpath.basename(path))
    except OSError as error:
        if error.errno not in _EXPECTED | _NOT_EMPTY:
            raise
        return False


def _remove_in(parent: int, name: str) -> bool:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not (stat.S_ISREG(found.st_mode) and found.st_size == 0):
        return False
    with descriptors.closing(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as fd:
        if not is_as_made(fd, parent):
            return False
    (os.rmdir if is_folder else os.unlink)(name, dir_fd=parent)
    return True


def is_as_made(fd: int, parent: int) -> bool:
    """Whether a file or folder has the owner and mode that the runtime gives, and no attributes."""
    found, above = os.fstat(fd), os.fstat(parent)
    mode, group = _MADE[stat.S_IFMT(found.st_mode)], 0
    if above.st_mode & stat.S_ISGID:  # which is inherited
        mode, group = mode | (stat.S_ISGID if stat.S_ISDIR(found.st_mode) else 0), above.st_gid
    return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, 0, group) and not _kept(fd)


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = posixpath.dirname(path)
    yield ""


@contextlib.contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    fd = views.locate(root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)

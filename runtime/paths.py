"""Paths inside a container's root, resolved by the kernel as if that root were `/` (openat2, RESOLVE_IN_ROOT).

The tree belongs to the container and may hold any symbolic link, so a path is resolved once, to a descriptor, and
everything after works on the descriptor. What is missing is made where the links lead *inside* the root: an image
whose /etc/resolv.conf points to a file that comes later is an ordinary one.
"""

import contextlib
import errno
import os
import stat
from typing import Final

from runtime import syscalls

_IN_ROOT: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_MAX_STEPS: Final = 256


def locate(root: int, path: str, *, flags: int = 0, links: bool = True) -> int:
    """An O_PATH descriptor of what `path` leads to below `root`."""
    resolve = _IN_ROOT if links else _IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    return syscalls.openat2(root, path, os.O_PATH | flags, resolve=resolve)


def make_folder(root: int, path: str, *, links: bool = True) -> int:
    """An O_PATH descriptor of the folder at `path`, which is made, with those above it, when it is missing."""
    try:
        return locate(root, path, flags=os.O_DIRECTORY, links=links)
    except FileNotFoundError:
        pass
    if links:
        path = without_links(root, path)
    reached = locate(root, "/")
    for name in path.split("/"):
        if name:
            following = _enter_or_make(reached, name)
            os.close(reached)
            reached = following
    return reached


def _enter_or_make(parent: int, name: str) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    return syscalls.openat2(parent, name, os.O_PATH | os.O_DIRECTORY, resolve=resolve)


def make_unfollowed(root: int, path: str, *, folder: bool) -> int:
    """An O_PATH descriptor of what has this very name, be it a link; made when it is missing."""
    above, _, name = path.rpartition("/")
    parent = make_folder(root, above or "/")
    try:
        try:
            return locate(parent, name, flags=os.O_NOFOLLOW)
        except FileNotFoundError:
            return make_folder(parent, name, links=False) if folder else make_file(parent, name)
    finally:
        os.close(parent)


def make_link(root: int, path: str, target: str) -> None:
    """A symbolic link at this very name; one that leads there already is as good."""
    above, _, name = path.rpartition("/")
    parent = make_folder(root, above or "/")
    try:
        os.symlink(target, name, dir_fd=parent)
    except FileExistsError:
        if _link_target(parent, name) != target:
            raise
    finally:
        os.close(parent)


def make_file(root: int, path: str) -> int:
    """An O_PATH descriptor of the file at `path`, which is made empty when it is missing."""
    try:
        return locate(root, path)
    except FileNotFoundError:
        pass
    above, _, name = without_links(root, path).rpartition("/")
    parent = make_folder(root, above or "/", links=False)
    resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
    try:
        os.close(syscalls.openat2(parent, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode=0o644, resolve=resolve))
        return syscalls.openat2(parent, name, os.O_PATH, resolve=resolve)
    finally:
        os.close(parent)


def without_links(root: int, path: str) -> str:
    """The same place, with every link on the way followed inside the root: /etc/x with x → /run/y becomes /run/y."""
    reached: list[str] = []
    ahead = path.split("/")[::-1]
    for _ in range(_MAX_STEPS):
        if not ahead:
            return "/" + "/".join(reached)
        name = ahead.pop()
        if name == "..":
            del reached[-1:]
        elif name not in {"", "."}:
            target = _link_target(root, "/".join(["", *reached, name]))
            if target is None:
                reached.append(name)
                continue
            if target.startswith("/"):
                reached = []
            ahead += target.split("/")[::-1]
    raise OSError(errno.ELOOP, f"{path}: too many links")


def _link_target(root: int, path: str) -> str | None:
    """Where a link points to; None for what is no link, or is not there."""
    try:
        fd = locate(root, path, flags=os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)

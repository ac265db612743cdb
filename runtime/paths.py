"""Paths inside a container's root, resolved by the kernel as if that root were `/` (openat2, RESOLVE_IN_ROOT).

The tree belongs to the container and may hold any symbolic link, so a path is resolved once, to a descriptor, and
everything after works on the descriptor.
"""

import os
from typing import Final

from runtime import errors, syscalls

_IN_ROOT: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def locate(root: int, path: str, *, flags: int = 0, links: bool = True) -> int:
    """An O_PATH descriptor of what `path` leads to below `root`."""
    resolve = _IN_ROOT if links else _IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    return syscalls.openat2(root, path, os.O_PATH | flags, resolve=resolve)


def make_folder(root: int, path: str, *, links: bool = True, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the folder at `path`, which is made, with those above it, when it is missing."""
    try:
        return locate(root, path, flags=os.O_DIRECTORY, links=links)
    except FileNotFoundError:
        pass
    names = [name for name in path.split("/") if name]
    reached = locate(root, "/")
    for depth, name in enumerate(names, 1):
        prefix = "/" + "/".join(names[:depth])
        try:
            following = locate(root, prefix, flags=os.O_DIRECTORY, links=links)
        except FileNotFoundError:
            following = _add_folder(reached, prefix, name, mode)
        os.close(reached)
        reached = following
    return reached


def _add_folder(parent: int, prefix: str, name: str, mode: int) -> int:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        # It is there, and yet it leads nowhere: a dangling link, which must not decide where the folder is made.
        raise errors.SetupFailed(f"{prefix}: is a link to nothing; remove it from the image", step=prefix) from None
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    return syscalls.openat2(parent, name, flags, resolve=syscalls.RESOLVE_BENEATH)


def make_file(root: int, path: str) -> int:
    """An O_PATH descriptor of the file at `path`, which is made empty when it is missing."""
    try:
        return locate(root, path)
    except FileNotFoundError:
        pass
    above, _, name = path.rpartition("/")
    parent = make_folder(root, above or "/")
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        os.close(syscalls.openat2(parent, name, flags, mode=0o644, resolve=syscalls.RESOLVE_BENEATH))
        return syscalls.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=syscalls.RESOLVE_BENEATH)
    finally:
        os.close(parent)

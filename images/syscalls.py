"""What this package asks of the kernel beyond `runtime.syscalls`; each call raises `OSError` with its name."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

from runtime import syscalls

if TYPE_CHECKING:
    from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_HERE = -100  # AT_FDCWD
_NO_REPLACE = 1


def open_beneath(dir_fd: int, path: str, flags: int) -> int:
    """Open without following any symbolic link and without leaving the folder; close-on-exec."""
    return syscalls.openat2(dir_fd, path, flags, resolve=syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS)


def rename_new(old: Path, new: Path) -> None:
    """renameat2(2) with RENAME_NOREPLACE: `FileExistsError` when the new name is taken, also by an empty folder."""
    if _LIBC.renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), _NO_REPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"renameat2: {os.strerror(number)}", str(new))


def syncfs(fd: int) -> None:
    """syncfs(2): write everything of this file system to the disk."""
    if _LIBC.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")

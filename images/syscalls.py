"""What this package asks of the kernel beyond `runtime.syscalls`; each call raises `OSError` with its name."""

from __future__ import annotations

import ctypes
import os

from runtime import syscalls

_LIBC = ctypes.CDLL(None, use_errno=True)


def open_beneath(dir_fd: int, path: str, flags: int) -> int:
    """Open without following any symbolic link and without leaving the folder; close-on-exec."""
    return syscalls.openat2(dir_fd, path, flags, resolve=syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS)


def syncfs(fd: int) -> None:
    """syncfs(2): write everything of this file system to the disk."""
    if _LIBC.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")

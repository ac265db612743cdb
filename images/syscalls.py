"""The three system calls that the standard library lacks, each raising `OSError` with the call's name."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437  # the same number on every architecture
_PR_SET_PDEATHSIG = 1

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: bytes, flags: int, *, resolve: int) -> int:
    """openat2(2), close-on-exec: open below a folder, under rules for how the path may be walked."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    result: int = _LIBC.syscall(_SYS_OPENAT2, dir_fd, path, ctypes.byref(how), ctypes.sizeof(how))
    if result < 0:
        raise _error("openat2", path)
    return result


def open_beneath(dir_fd: int, path: str | bytes, flags: int) -> int:
    """Open without following any symbolic link and without leaving the folder."""
    return openat2(dir_fd, os.fsencode(path), flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def syncfs(fd: int) -> None:
    """syncfs(2): write everything of this file system to the disk."""
    if _LIBC.syncfs(fd) != 0:
        raise _error("syncfs")


def die_with_parent(signal_number: int) -> None:
    """prctl(PR_SET_PDEATHSIG): have the kernel signal us when the thread that made us ends."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise _error("prctl PR_SET_PDEATHSIG")


def _error(call: str, path: bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    place = f" {os.fsdecode(path)!r}" if path is not None else ""
    return OSError(number, f"{call}{place}: {os.strerror(number)}")

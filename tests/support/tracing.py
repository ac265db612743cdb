"""The system call filters of a running process, read back from the kernel (ptrace(2), PTRACE_SECCOMP_GET_FILTER)."""

import ctypes
import errno
import os
from typing import Final

from tests.support.waiting import until

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_DETACH: Final = 17
_GET_FILTER: Final = 0x420C
_ALL_CHILDREN: Final = 0x40000000  # __WALL

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: object = None) -> int:
    result = int(_libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), data))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def filters(pid: int) -> list[bytes]:
    """Their programs, the latest first; for a process that has one thread, waits, and is no child of ours.

    A thread that is about to be replaced, as another one executes a program, never stops.
    """
    _ptrace(_SEIZE, pid)
    try:
        _ptrace(_INTERRUPT, pid)
        until(lambda: os.waitpid(pid, _ALL_CHILDREN | os.WNOHANG)[0] == pid, what=f"process {pid} stands still")
        return _read(pid)
    finally:
        _ptrace(_DETACH, pid)


def _read(pid: int) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            size = _ptrace(_GET_FILTER, pid, len(found))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        program = ctypes.create_string_buffer(size * 8)
        _ptrace(_GET_FILTER, pid, len(found), program)
        found.append(program.raw)

"""Ways of making a process that Python does not have. All are for processes with one thread."""

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

from runtime import machinecode

_CLONE: Final = {"x86_64": 56, "aarch64": 220, "riscv64": 220}[os.uname().machine]
_CLONE_VM, _CLONE_PARENT = 0x100, 0x8000
_IDLE_S: Final = 5
_IDLE_STACK_BYTES: Final = 64 * 1024

# A child must hold the interpreter's lock as its parent did; a call through `ctypes.CDLL` lets go of it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_idle_stack = ctypes.create_string_buffer(_IDLE_STACK_BYTES)


def idle_in(namespaces: int) -> int:
    """clone(2): the pid of a process in new namespaces that sleeps, and ends by itself after five seconds.

    It shares our memory, so making it copies no page tables (0.1 ms with its end, where a fork takes 0.6 ms); it runs
    nothing but the C library's sleep(3), on a stack of its own. The caller kills and reaps it before the next one.
    """
    program = ctypes.cast(_libc.sleep, ctypes.c_void_p)
    top = ctypes.c_void_p((ctypes.addressof(_idle_stack) + _IDLE_STACK_BYTES) & ~15)
    flags = ctypes.c_int(namespaces | _CLONE_VM | signal.SIGCHLD)
    return _checked(_libc.clone(program, top, flags, ctypes.c_void_p(_IDLE_S)))


def fork_sibling() -> int:
    """fork(2) whose child is our parent's: its pid, and 0 in the child."""
    arguments = [ctypes.c_long(value) for value in (_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)]
    # The child lets go of locks of the interpreter, which are taken before; Python 3.13 ends it when it holds none.
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(_libc.syscall(*arguments))
    (python.PyOS_AfterFork_Parent if pid else python.PyOS_AfterFork_Child)()
    return _checked(pid)


def become_sibling() -> int:
    """Go on as a new process, our parent's child; the old one ends. The new one's pid, as the old one saw it.

    The child takes the memory over, stack and all, instead of a copy: that saves the fork's page tables and a fault for
    every page that is written afterwards, together 2 ms. So the old one must not touch a byte once the child is there,
    and calls nothing but exit_group(2); that takes a few instructions of machine code.
    """
    if _succeed is None:
        return _fork_and_tell()
    # Or the kernel would clear our thread's number in memory that is the child's by then (set_tid_address(2)).
    _libc.syscall(ctypes.c_long(_SET_TID_ADDRESS), None)
    number = ctypes.c_int(0)
    _checked(_succeed(_CLONE_VM | _CLONE_PARENT | _CLONE_PARENT_SETTID | signal.SIGCHLD, ctypes.byref(number)))
    return number.value


def _fork_and_tell() -> int:
    """The same where there is no machine code of ours: by a copy of the memory."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = fork_sibling()
    if pid:
        try:
            os.write(tell, b"%d" % pid)
        finally:
            os._exit(0)
    os.close(tell)
    number = int(os.read(told, 20) or b"0")
    os.close(told)
    if not number:
        os._exit(1)
    return number


_CLONE_PARENT_SETTID: Final = 0x100000
_SET_TID_ADDRESS: Final = 218  # of x86-64, as the instructions are
_SUCCEED: Final = bytes.fromhex(
    "4889f2"  # mov rdx, rsi      where the child's pid goes
    "31f6"  # xor esi, esi        on the same stack
    "4531d2"  # xor r10d, r10d
    "4531c0"  # xor r8d, r8d
    "b838000000"  # mov eax, 56
    "0f05"  # syscall             clone(flags, 0, pid, 0, 0)
    "4885c0"  # test rax, rax
    "7e09"  # jle +9              the child, or nobody: back to the caller
    "31ff"  # xor edi, edi
    "b8e7000000"  # mov eax, 231
    "0f05"  # syscall             exit_group(0)
    "c3"  # ret
)


def _function() -> Callable[..., int] | None:
    """The instructions as a function; None on another processor, or where memory must not become a program."""
    if _page is None:
        return None
    return ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_void_p)(machinecode.address(_page))


_page: Final = machinecode.place(_SUCCEED) if os.uname().machine == "x86_64" else None  # as long as the function is
_succeed: Final = _function()


def _checked(pid: int) -> int:
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"clone: {os.strerror(number)}")
    return pid

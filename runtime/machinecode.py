"""Memory that holds instructions of ours: written once, then executed and never written again."""

import ctypes
import mmap

_PROTECTION = mmap.PROT_READ | mmap.PROT_EXEC
_libc = ctypes.CDLL(None, use_errno=True)


def place(instructions: bytes) -> mmap.mmap | None:
    """A page with the instructions; None where memory must not become a program, as SELinux may have it."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.write(instructions)
    if _libc.mprotect(ctypes.c_void_p(address(page)), ctypes.c_size_t(mmap.PAGESIZE), _PROTECTION):
        return None
    return page


def address(memory: mmap.mmap) -> int:
    """Where it is, as long as the object lives."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))

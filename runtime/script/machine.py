"""What executes a list of system calls: a hundred bytes of machine code for x86-64, and the memory that both are in.

A step is eight words of 64 bits, the list ends with one that does not return:

    0   bits 0-15    the system call's number
        bits 16-18   which of the first three arguments are the addresses of their values
        bits 24-31   when the call says that there is no such file, go on so many steps later; 0 is a failure
        bit  32      whoever gets a positive answer ends here: the parent of a clone
    1-6              the arguments
    7                the address that the answer goes to

When a call fails otherwise, the step's address and the error go into the first two words of the memory, and the
process ends. The code keeps everything in registers and uses no stack, so that a clone in the middle of the list goes
on with the next step, whatever memory it shares.
"""

import ctypes
import mmap
import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

from runtime import machinecode
from runtime.elf import Jump, Label, Part, assemble

BYTES: Final = 160 * 1024
STEPS_AT: Final = 4 * 1024
DATA_AT: Final = 40 * 1024
CELLS_AT: Final = 64
STEP_BYTES: Final = 64
UNSET: Final = 1 << 62
"""What a cell holds before its step was done; no answer of the kernel's."""

Piece: TypeAlias = tuple[int, bytes]
"""Where in the memory something begins, and what."""

_CLONE_VM: Final = 0x100
_WORD: Final = struct.Struct("<q")
_STACK_BYTES: Final = 4096
_libc = ctypes.PyDLL(None, use_errno=True)

# rbx: the memory; r15: the step; r14: its first word. A call keeps them, and changes rax, rcx and r11 only.
_CODE: Final[tuple[Part, ...]] = (
    b"\x48\x89\xfb",  # mov rbx, rdi
    b"\x4c\x8d\xbb" + struct.pack("<i", STEPS_AT),  # lea r15, [rbx + STEPS_AT]
    Label("step"),
    b"\x4d\x8b\x37",  # mov r14, [r15]
    b"\x49\x8b\x7f\x08",  # mov rdi, [r15 + 8]
    b"\x49\x8b\x77\x10",  # mov rsi, [r15 + 16]
    b"\x49\x8b\x57\x18",  # mov rdx, [r15 + 24]
    b"\x4d\x8b\x57\x20",  # mov r10, [r15 + 32]
    b"\x4d\x8b\x47\x28",  # mov r8, [r15 + 40]
    b"\x4d\x8b\x4f\x30",  # mov r9, [r15 + 48]
    b"\x41\x0f\xba\xe6\x10",  # bt r14d, 16
    b"\x73\x03",  # jnc +3
    b"\x48\x8b\x3f",  # mov rdi, [rdi]
    b"\x41\x0f\xba\xe6\x11",  # bt r14d, 17
    b"\x73\x03",  # jnc +3
    b"\x48\x8b\x36",  # mov rsi, [rsi]
    b"\x41\x0f\xba\xe6\x12",  # bt r14d, 18
    b"\x73\x03",  # jnc +3
    b"\x48\x8b\x12",  # mov rdx, [rdx]
    b"\x41\x0f\xb7\xc6",  # movzx eax, r14w
    b"\x0f\x05",  # syscall
    b"\x49\x8b\x4f\x38",  # mov rcx, [r15 + 56]
    b"\x48\x89\x01",  # mov [rcx], rax
    b"\x48\x3d\x01\xf0\xff\xff",  # cmp rax, -4095        -4095 … -1 are errors
    Jump(b"\x73", "failed"),  # jae failed
    b"\x49\x0f\xba\xe6\x20",  # bt r14, 32
    Jump(b"\x73", "next"),  # jnc next
    b"\x48\x85\xc0",  # test rax, rax
    Jump(b"\x74", "next"),  # jz next               the child
    b"\x31\xff",  # xor edi, edi
    Jump(b"\xeb", "exit"),  # jmp exit
    Label("failed"),
    b"\x48\x83\xf8\xfe",  # cmp rax, -2            ENOENT
    Jump(b"\x75", "tell"),  # jne tell
    b"\x41\x0f\xb6\x4f\x03",  # movzx ecx, byte [r15 + 3]
    b"\x85\xc9",  # test ecx, ecx
    Jump(b"\x74", "tell"),  # jz tell
    b"\xc1\xe1\x06",  # shl ecx, 6             steps of 64 bytes
    b"\x49\x01\xcf",  # add r15, rcx
    Jump(b"\xeb", "step"),  # jmp step
    Label("next"),
    b"\x49\x83\xc7\x40",  # add r15, 64
    Jump(b"\xeb", "step"),  # jmp step
    Label("tell"),
    b"\x4c\x89\x3b",  # mov [rbx], r15
    b"\x48\x89\x43\x08",  # mov [rbx + 8], rax
    b"\xbf\x01\x00\x00\x00",  # mov edi, 1
    Label("exit"),
    b"\xb8\xe7\x00\x00\x00",  # mov eax, 231           exit_group
    b"\x0f\x05",  # syscall
)

_page: Final = machinecode.place(assemble(_CODE)) if os.uname().machine == "x86_64" else None

SUPPORTED: Final = _page is not None
"""Whether lists can be executed here."""


class Memory:
    """The memory of one list, at an address that every fork of the process that made it has, too."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._stack = ctypes.create_string_buffer(_STACK_BYTES)
        self.address = machinecode.address(self._memory)
        self.view = memoryview(self._memory)

    def run(self, flags: int) -> int:
        """clone(2): the pid of a process that shares our memory and executes the list in it. Signals are blocked."""
        struct.pack_into("<2Q", self.view, 0, 0, 0)  # no failure
        top = ctypes.c_void_p((ctypes.addressof(self._stack) + _STACK_BYTES) & ~15)
        assert _page is not None, "a script for a processor that has no code of ours"
        entry, argument = ctypes.c_void_p(machinecode.address(_page)), ctypes.c_void_p(self.address)
        pid = int(_libc.clone(entry, top, ctypes.c_int(flags | _CLONE_VM | signal.SIGCHLD), argument))
        if pid < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"clone: {os.strerror(number)}")
        return pid

    def failure(self) -> tuple[int, int] | None:
        """Which step failed, by its place in the list, and the error's number; None when none has."""
        step, answer = struct.unpack_from("<Qq", self.view)
        return ((step - self.address - STEPS_AT) // STEP_BYTES, -answer) if step else None

    def cell(self, number: int) -> int:
        """The value in a cell."""
        return int(_WORD.unpack_from(self.view, CELLS_AT + 8 * number)[0])

    def text(self, address: int) -> str:
        """What was written at an address of the list's data, up to the first zero."""
        begin = address - self.address
        return bytes(self.view[begin : begin + mmap.PAGESIZE]).partition(b"\0")[0].decode()

    def was_done(self, number: int) -> bool:
        """Whether the step with this cell was done, and none after it has failed."""
        return self.cell(number) != UNSET and not _WORD.unpack_from(self.view)[0]

    def discard(self) -> None:
        """Give the pages of a list back that was executed."""
        self._memory.madvise(mmap.MADV_DONTNEED)

    def load(self, pieces: Sequence[Piece]) -> None:
        """Put a list, or what was written of it, into its place."""
        for begin, piece in pieces:
            self.view[begin : begin + len(piece)] = piece

    def receive(self, channel: socket.SocketType, places: Sequence[tuple[int, int]]) -> None:
        """Likewise, from a message with all pieces, of which it is known where they begin and how long they are."""
        received = channel.recvmsg_into([self.view[begin : begin + size] for begin, size in places])[0]
        expected = sum(size for _, size in places)
        assert received == expected, f"a script of {received} bytes, not {expected}"

    def give(self, descriptors: Sequence[int], first: int = 1) -> None:
        """Fill the cells of the descriptors that a list is given, from the one of this number on."""
        struct.pack_into(f"<{len(descriptors)}q", self.view, CELLS_AT + 8 * first, *descriptors)

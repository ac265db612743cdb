"""The reaper in the machine code of x86-64 (see `reaper` for what it does).

System call numbers are those of arch/x86/entry/syscalls/syscall_64.tbl; arguments go into rdi, rsi, rdx and r10, the
number into eax, and the answer comes back in rax, below zero for an error.
"""

import struct

from runtime.elf import Jump, Label, Part


def code(child: int) -> tuple[Part, ...]:
    """For the program with this pid."""
    pid = struct.pack("<I", child)
    return (
        Label("wait"),
        b"\x6a\xff",  # push -1              the set: every signal
        b"\x48\x89\xe7",  # mov rdi, rsp         … where it is
        b"\x31\xf6",  # xor esi, esi         nothing more to be told of the signal
        b"\x31\xd2",  # xor edx, edx         for ever
        b"\x6a\x08\x41\x5a",  # push 8; pop r10      bytes of the set
        b"\xb8\x80\x00\x00\x00",  # mov eax, 128         rt_sigtimedwait
        b"\x0f\x05",  # syscall
        b"\x5f",  # pop rdi              the stack is as before
        b"\x83\xf8\xfc",  # cmp eax, -4          EINTR: it was stopped and goes on
        Jump(b"\x74", "wait"),  # je wait
        b"\x85\xc0",  # test eax, eax
        Jump(b"\x7e", "failed"),  # jle failed           a filter forbids it: end rather than spin
        b"\x83\xf8\x11",  # cmp eax, 17          SIGCHLD
        Jump(b"\x74", "bury"),  # je bury
        b"\xbf" + pid,  # mov edi, child
        b"\x89\xc6",  # mov esi, eax         the same signal
        b"\x6a\x3e\x58",  # push 62; pop rax     kill
        b"\x0f\x05",  # syscall
        Jump(b"\xeb", "wait"),  # jmp wait
        Label("bury"),
        b"\x50",  # push rax             room for the status
        b"\x48\x89\xe6",  # mov rsi, rsp
        b"\x6a\xff\x5f",  # push -1; pop rdi     whoever it is
        b"\x6a\x01\x5a",  # push 1; pop rdx      WNOHANG
        b"\x45\x31\xd2",  # xor r10d, r10d       nothing on what it used
        b"\x6a\x3d\x58",  # push 61; pop rax     wait4
        b"\x0f\x05",  # syscall
        b"\x5f",  # pop rdi              the status
        b"\x3d" + pid,  # cmp eax, child
        Jump(b"\x74", "ended"),  # je ended
        b"\x85\xc0",  # test eax, eax
        Jump(b"\x7f", "bury"),  # jg bury              somebody else's child: there may be more
        Jump(b"\x74", "wait"),  # je wait              nobody is dead
        Label("failed"),
        b"\xbf" + struct.pack("<I", 125),  # mov edi, 125
        Jump(b"\xeb", "exit"),  # jmp exit
        Label("ended"),
        b"\x89\xf8",  # mov eax, edi
        b"\xc1\xef\x08",  # shr edi, 8           bits 8 to 15: the exit code
        b"\x83\xe0\x7f",  # and eax, 127         bits 0 to 6: the signal that ended it
        Jump(b"\x74", "exit"),  # jz exit              none
        b"\x8d\xb8\x80\x00\x00\x00",  # lea edi, [rax + 128]
        Label("exit"),
        b"\xb8\xe7\x00\x00\x00",  # mov eax, 231         exit_group, which takes the lowest 8 bits
        b"\x0f\x05",  # syscall
    )

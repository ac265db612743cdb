"""The reaper in the machine code of aarch64 (see `reaper` for what it does).

System call numbers are those of include/uapi/asm-generic/unistd.h; arguments go into x0 to x3, the number into x8, and
the answer comes back in x0, below zero for an error. The kernel leaves every other register alone, so w19 keeps the
program's pid. The stack pointer stays a multiple of 16.
"""

import struct

from runtime.elf import Branch, Label, Part

_EQUAL, _GREATER, _LESS_OR_EQUAL = 0, 12, 13


def code(child: int) -> tuple[Part, ...]:
    """For the program with this pid."""
    return (
        _word(0x52800013 | (child & 0xFFFF) << 5),  # mov w19, child        its lower half
        _word(0x72A00013 | (child >> 16) << 5),  # movk w19, child, lsl 16    its upper half
        Label("wait"),
        _word(0x92800000),  # mov x0, -1            the set: every signal
        _word(0xF81F0FE0),  # str x0, [sp, -16]!
        _word(0x910003E0),  # mov x0, sp            … where it is
        _word(0xD2800001),  # mov x1, 0             nothing more to be told of the signal
        _word(0xD2800002),  # mov x2, 0             for ever
        _word(0xD2800103),  # mov x3, 8             bytes of the set
        _word(0xD2801128),  # mov x8, 137           rt_sigtimedwait
        _word(0xD4000001),  # svc 0
        _word(0x910043FF),  # add sp, sp, 16        the stack is as before
        _word(0x3100101F),  # cmn w0, 4             EINTR: it was stopped and goes on
        _branch(_EQUAL, "wait"),  # b.eq wait
        _word(0x7100001F),  # cmp w0, 0
        _branch(_LESS_OR_EQUAL, "failed"),  # b.le failed           a filter forbids it: end rather than spin
        _word(0x7100441F),  # cmp w0, 17            SIGCHLD
        _branch(_EQUAL, "bury"),  # b.eq bury
        _word(0x2A0003E1),  # mov w1, w0            the same signal
        _word(0x2A1303E0),  # mov w0, w19           to the child
        _word(0xD2801028),  # mov x8, 129           kill
        _word(0xD4000001),  # svc 0
        _always("wait"),  # b wait
        Label("bury"),
        _word(0xD10043FF),  # sub sp, sp, 16        room for the status
        _word(0x92800000),  # mov x0, -1            whoever it is
        _word(0x910003E1),  # mov x1, sp
        _word(0xD2800022),  # mov x2, 1             WNOHANG
        _word(0xD2800003),  # mov x3, 0             nothing on what it used
        _word(0xD2802088),  # mov x8, 260           wait4
        _word(0xD4000001),  # svc 0
        _word(0xB84107E1),  # ldr w1, [sp], 16      the status
        _word(0x6B13001F),  # cmp w0, w19
        _branch(_EQUAL, "ended"),  # b.eq ended
        _word(0x7100001F),  # cmp w0, 0
        _branch(_GREATER, "bury"),  # b.gt bury             somebody else's child: there may be more
        _branch(_EQUAL, "wait"),  # b.eq wait             nobody is dead
        Label("failed"),
        _word(0x52800FA0),  # mov w0, 125
        _always("exit"),  # b exit
        Label("ended"),
        _word(0x53083C20),  # ubfx w0, w1, 8, 8     bits 8 to 15: the exit code
        _word(0x72001821),  # ands w1, w1, 127      bits 0 to 6: the signal that ended it
        _branch(_EQUAL, "exit"),  # b.eq exit             none
        _word(0x11020020),  # add w0, w1, 128
        Label("exit"),
        _word(0xD2800BC8),  # mov x8, 94            exit_group, which takes the lowest 8 bits
        _word(0xD4000001),  # svc 0
    )


def _word(instruction: int) -> bytes:
    return struct.pack("<I", instruction)


def _branch(condition: int, to: str) -> Branch:
    return Branch(0x54000000 | condition, shift=5, bits=19, to=to)


def _always(to: str) -> Branch:
    return Branch(0x14000000, shift=0, bits=26, to=to)

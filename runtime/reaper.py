"""Process 1 for containers that ask for one (annotation `orch.init: "true"`): it passes signals on and buries the dead.

    first process (Python) ── fork ──► waits, then becomes the program as without a reaper: it tells of its own exec
          │                              ▲
          └── exec of a sealed memory file: the reaper

The program waits for the reaper, or it could look into a process 1 that is still ours.

The reaper is a hundred bytes of machine code, written out below: no interpreter stays in the container, nothing of the
host can be reached through /proc/1/exe, and nothing has to be built or fetched. It knows one number, the program's pid,
which is put into it. It calls the kernel for four things:

    rt_sigtimedwait   wait for any signal; all are blocked, so none is lost, also none from before it ran
    kill              every signal but SIGCHLD goes to the program, and to it alone: whoever wants a group has one
    wait4             at SIGCHLD bury whoever is dead
    exit_group        with the program's code, 128 + n after signal n; the kernel then ends whatever else is there

docs/decisions/0008 tells what was refused.
"""

import fcntl
import os
import platform
import signal
import struct
from collections.abc import Callable
from typing import Final

from runtime import errors, syscalls
from runtime.elf import Jump, Label, Part, assemble, executable

ANNOTATION: Final = "orch.init"

_NAME: Final = "orch-init"
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FAILED: Final = 125
"""The exit code when a filter of system calls does not let the reaper do its work."""


def check(value: str, *, own_pids: bool, notifies: bool) -> None:
    """Whether a container may have this value of the annotation; raises InvalidSpec.

    `own_pids`: it has a new pid namespace. `notifies`: its filter asks an agent, which takes one listener only, and the
    reaper and the program each load the filter.
    """
    wrong = ""
    if value not in {"true", "false"}:
        wrong = f"{value!r} must be true or false"
    elif value == "true" and not own_pids:
        wrong = "needs a new pid namespace; add {type: pid} to linux.namespaces"
    elif value == "true" and notifies:
        wrong = "cannot be beside a seccomp profile with SCMP_ACT_NOTIFY; remove one of them"
    elif value == "true" and platform.machine() != "x86_64":
        wrong = f"there is no process 1 for {platform.machine()} yet; remove it, or bring one in the image"
    if wrong:
        raise errors.InvalidSpec(f"annotations[{ANNOTATION}]: {wrong}")


def leave_behind(prepare: Callable[[], None]) -> None:
    """Fork. Returns in the new process, which becomes the program; this one becomes the reaper.

    `prepare` is what both do last before their exec. Raises SetupFailed, in whichever process it is.
    """
    terminal = os.isatty(0)
    waits, becomes = os.pipe2(os.O_CLOEXEC)  # ends when nobody has the second any more: after the reaper's exec
    # Before the fork: from here on no signal is lost, and the program, which unblocks them, gets those meant for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    with errors.step("process 1: fork the program"):
        child = os.fork()
    if child == 0:
        _lead(terminal=terminal)
        os.close(becomes)
        os.read(waits, 1)
        os.close(waits)
        return
    with errors.step("process 1: write it to memory"):
        file = _memory_file(program(child))
    execve = syscalls.prepared_execve(f"/proc/self/fd/{file}", [_NAME], {})
    # What is ignored would not be waited for.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    syscalls.close_on_exec_from(3)
    prepare()
    with errors.step("process 1: execute it"):
        execve()


def _lead(*, terminal: bool) -> None:
    """A group of its own, and the terminal's: what is typed there (ctrl-C) goes to the program and not to process 1."""
    with errors.step("process 1: make the program the leader of its group"):
        os.setpgid(0, 0)
        if terminal:
            os.tcsetpgrp(0, os.getpid())  # SIGTTOU, which asks who may, is blocked


def _memory_file(content: bytes) -> int:
    file = os.memfd_create(_NAME, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(file, content)
    os.fchmod(file, 0o555)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
    return file


def program(child: int) -> bytes:
    """The reaper of this child, as an executable for x86-64.

    System call numbers are those of arch/x86/entry/syscalls/syscall_64.tbl; arguments go into rdi, rsi, rdx and r10,
    the number into eax, and the answer comes back in rax, below zero for an error.
    """
    pid = struct.pack("<I", child)
    code: tuple[Part, ...] = (
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
        b"\xbf" + struct.pack("<I", _FAILED),  # mov edi, 125
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
    return executable(assemble(code))

"""Process 1 for containers that ask for one (annotation `orch.init: "true"`): it passes signals on and buries the dead.

    first process (Python) ── fork ──► waits, then becomes the program as without a reaper: it tells of its own exec
          │                              ▲
          └── exec of a sealed memory file: the reaper

The program waits for the reaper, or it could look into a process 1 that is still ours.

The reaper is a hundred bytes of machine code, written out in `reaper_x86_64` and `reaper_aarch64`: no interpreter stays
in the container, nothing of the host can be reached through /proc/1/exe, and nothing has to be built or fetched. It
knows one number, the program's pid, which is put into it. It calls the kernel for four things:

    rt_sigtimedwait   wait for any signal; all are blocked, so none is lost, also none from before it ran
    kill              every signal but SIGCHLD goes to the program, and to it alone: whoever wants a group has one
    wait4             at SIGCHLD bury whoever is dead
    exit_group        with the program's code, 128 + n after signal n; the kernel then ends whatever else is there.
                      125 when a filter of system calls does not let the reaper do its work

docs/decisions/0008 tells what was refused.
"""

import fcntl
import os
import platform
import signal
from collections.abc import Callable
from typing import Final

from runtime import errors, reaper_aarch64, reaper_x86_64, syscalls
from runtime.elf import AARCH64, X86_64, Part, assemble, executable

ANNOTATION: Final = "orch.init"

_NAME: Final = "orch-init"
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


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
    elif value == "true" and platform.machine() not in MACHINES:
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


def program(child: int, machine: str = "") -> bytes:
    """The reaper of this child, as an executable for this machine or another one (as uname(2) names them)."""
    code, number = _MACHINES[machine or platform.machine()]
    return executable(assemble(code(child)), number)


_MACHINES: Final[dict[str, tuple[Callable[[int], tuple[Part, ...]], int]]] = {
    "x86_64": (reaper_x86_64.code, X86_64),
    "aarch64": (reaper_aarch64.code, AARCH64),
}
MACHINES: Final = tuple(_MACHINES)
"""Those that it is written for."""

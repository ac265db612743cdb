"""Time namespaces: the clocks that count from the machine's start, with offsets of a container's own.

The kernel gives a new one to the children of whoever made it, and takes its offsets until the first process is in it
(time_namespaces(7)). So a child makes it, in the user namespace that is to own it, and its parent, which still has the
host's /proc and privileges, writes the offsets and takes a descriptor; by that the first process enters, without a
further fork.
"""

import errno
import os
import signal
from collections.abc import Callable
from typing import Final

from runtime import errors, privilege, syscalls, userns
from runtime.spec import Spec
from runtime.spec.timeoffsets import TimeOffset

_STEP: Final = "linux.namespaces: time"


def make(spec: Spec, owner: userns.Owner | None) -> int:
    """A descriptor of the time namespace that the configuration asks for, with its offsets; -1 for none."""
    if not spec.makes("time"):
        return -1
    with errors.step(_STEP):
        pid, told = _idle(lambda: _unshare(owner))
        try:
            folder = f"/proc/{_await_made(told)}"
            if spec.time_offsets:
                _write(folder, spec.time_offsets)
            return os.open(f"{folder}/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(told)


def enter(made: int) -> None:
    """Go on in the namespace, if there is one."""
    if made >= 0:
        with errors.step(_STEP):
            syscalls.setns(made, syscalls.CLONE_NEWTIME)
        os.close(made)


def _unshare(owner: userns.Owner | None) -> None:
    if owner is not None:
        syscalls.setns(owner.fd, syscalls.CLONE_NEWUSER)
    syscalls.unshare(syscalls.CLONE_NEWTIME)


def _idle(prepare: Callable[[], None]) -> tuple[int, int]:
    """A child that prepares itself and then waits to be killed; its pid, and a pipe for what it has to tell."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, told
    try:
        syscalls.set_parent_death_signal(signal.SIGKILL)
        if privilege.in_user_namespace():
            # Or its files in /proc were the host's root's, as they are of whatever nobody may look into.
            syscalls.set_dumpable(1)
        # The number by which /proc, which is still the host's, knows this process.
        number = os.readlink("/proc/self")
        try:
            prepare()
            os.write(tell, number.encode())
        except OSError as error:
            os.write(tell, f"-{error.errno}".encode())
        signal.pause()
    finally:
        os._exit(1)


def _await_made(told: int) -> int:
    number = int(os.read(told, 32) or -errno.ECHILD)
    if number < 0:
        remedy = "; this kernel has no time namespaces, so leave it out" if number == -errno.EINVAL else ""
        raise OSError(-number, f"unshare: {os.strerror(-number)}{remedy}")
    return number


def _write(folder: str, offsets: tuple[TimeOffset, ...]) -> None:
    with errors.step("linux.timeOffsets"):
        file = os.open(f"{folder}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            lines = (f"{offset.clock} {offset.seconds} {offset.nanoseconds}\n" for offset in offsets)
            os.write(file, "".join(lines).encode())
        except OSError as error:
            if error.errno != errno.ERANGE:
                raise
            raise OSError(errno.ERANGE, "the clock would be negative, or beyond 146 years; use less") from error
        finally:
            os.close(file)

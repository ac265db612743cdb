"""Wait for a process as if the caller had started it: its exit code, the caller's signals, and the caller's terminal.

The signals are blocked and read from a descriptor, so one loop sees them, the terminal and the end in turn.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from typing import Final

from runtime import syscalls, terminal

_CHUNK: Final = 64 * 1024
_SIGINFO_BYTES: Final = 128
_NOT_FORWARDED: Final = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE})
_OUR_OWN: Final = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Foreground:
    """To be made before the process is, or a signal that comes early is lost."""

    def __init__(self) -> None:
        self._caught = frozenset(signal.valid_signals()) - _OUR_OWN
        signal.pthread_sigmask(signal.SIG_BLOCK, self._caught)
        self._signals = syscalls.signalfd(frozenset(int(number) for number in self._caught))
        self._master = -1

    def take_terminal(self, master: int) -> None:
        """Copy between this terminal's master and our own streams while waiting."""
        self._master = master
        self._resize()  # before the program starts, which may ask for the size at once

    def wait(self, pid: int) -> int:
        """The exit code of our child `pid`, as a shell has it."""
        with self._raw_input():
            while True:
                ready = self._ready()
                # Signals first: whoever resizes the window and then types expects the size to be there.
                if self._signals in ready and (status := self._serve_signals(pid)) is not None:
                    self._copy_rest()
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
                if self._master in ready:
                    self._copy_out()
                if 0 in ready:
                    self._copy_in()

    def _ready(self) -> list[int]:
        watched = [self._signals]
        if self._master >= 0:
            watched.append(self._master)
            if self._input_open:
                watched.append(0)
        return select.select(watched, [], [])[0]

    _input_open = True

    def _serve_signals(self, pid: int) -> int | None:
        """Forward what came in; returns the wait status once the process has ended."""
        for information in _read_signals(self._signals):
            number = struct.unpack_from("I", information)[0]
            if number == signal.SIGWINCH:
                self._resize()
            elif number not in _NOT_FORWARDED:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        return _reap(pid)

    def _copy_out(self) -> bool:
        try:
            data = os.read(self._master, _CHUNK)
        except OSError:  # EIO: nobody holds the other end any more
            data = b""
        if not data:
            os.close(self._master)
            self._master = -1
            return False
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        return True

    def _copy_in(self) -> None:
        data = os.read(0, _CHUNK)
        if not data:
            self._input_open = False
            data = b"\x04"  # end of transmission: a terminal's way to say that no more comes
        if self._master >= 0:
            os.write(self._master, data)

    def _copy_rest(self) -> None:
        while self._master >= 0 and select.select([self._master], [], [], 0)[0]:
            if not self._copy_out():
                return

    def _resize(self) -> None:
        if self._master >= 0 and os.isatty(0):
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
            rows, columns = struct.unpack("HHHH", size)[:2]
            if rows and columns:
                terminal.resize(self._master, rows, columns)

    @contextlib.contextmanager
    def _raw_input(self) -> Iterator[None]:
        """Our own terminal passes every key on; its old ways come back at the end."""
        if self._master < 0 or not os.isatty(0):
            yield
            return
        before = termios.tcgetattr(0)
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is kept
        try:
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _read_signals(fd: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        data = os.read(fd, _SIGINFO_BYTES * 16)
        for start in range(0, len(data), _SIGINFO_BYTES):
            yield data[start : start + _SIGINFO_BYTES]


def _reap(pid: int) -> int | None:
    """Collect every child that has ended, orphans of the container too; the status of ours when it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == pid:
                found = status
    return found

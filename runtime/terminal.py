"""Pseudo-terminals, always taken from the container's own devpts, and only after it was seen to be one."""

import fcntl
import os
import struct
import termios
from typing import Final

from runtime import errors, syscalls

_TIOCGPTPEER: Final = 0x5441
_TIOCSPTLCK: Final = 0x40045431


def open_pair() -> tuple[int, int]:
    """A new terminal's two ends: the master, and the slave for the process."""
    with errors.step("open a terminal at /dev/pts/ptmx"):
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if syscalls.fstatfs_type(master) != syscalls.DEVPTS_SUPER_MAGIC:
            os.close(master)
            raise errors.SetupFailed("/dev/pts in the container is not a devpts mount; mount one", step="terminal")
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        # By the master's descriptor: a path such as /dev/pts/0 could be replaced under our hands.
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def resize(master: int, rows: int, columns: int) -> None:
    """Tell the terminal its size; the foreground process gets SIGWINCH."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def take_over(slave: int, uid: int) -> None:
    """Make the slave the session's controlling terminal and the standard streams of this process."""
    with errors.step("take the terminal"):
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        os.fchown(slave, uid, -1)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        if slave > 2:
            os.close(slave)


def put_on_console(slave: int) -> None:
    """Show the terminal as /dev/console too; called with the container's root as root."""
    with errors.step("bind /dev/console"):
        folder = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        flags = os.O_CREAT | os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        target = syscalls.openat2(folder, "console", flags, mode=0o600, resolve=syscalls.RESOLVE_BENEATH)
        copy = syscalls.open_tree(slave, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
        syscalls.move_mount(copy, target)
        for fd in (copy, target, folder):
            os.close(fd)

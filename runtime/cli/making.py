"""What `create`, `run` and `exec` have in common: a process that is fit to be a parent, and who takes the terminal."""

import array
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from runtime import errors, signals, syscalls
from runtime.cli.options import Flag, Options

FLAGS: Final = (
    Flag("--console-socket", value="SOCKET", help="send the terminal to whoever listens there"),
    Flag("--pid-file", value="FILE", help="write the process's pid to this file"),
    Flag("--preserve-fds", value="N", help="pass descriptors 3 to N+2 on to the program"),
)
CREATION_FLAGS: Final = (
    Flag("--no-pivot", help="accepted: the root is changed by pivot_root all the same, which a program cannot undo"),
    Flag("--no-new-keyring", help="accepted: no session keyring is made"),
)
_FIRST_LISTEN_FD: Final = 3


def settle(given: Options) -> int:
    """Make this process a good parent; returns how many descriptors from 3 on are the program's."""
    wanted = given.number("--preserve-fds", 0)
    assert wanted is not None
    if not 0 <= wanted <= 1000:
        raise errors.InvalidSpec(f"--preserve-fds: {wanted} must be between 0 and 1000")
    preserved = wanted + listen_fds()
    for fd in range(_FIRST_LISTEN_FD, _FIRST_LISTEN_FD + preserved):
        try:
            os.fstat(fd)
        except OSError:
            raise errors.InvalidSpec(f"--preserve-fds: descriptor {fd} is not open") from None
    # What else the caller left open must reach neither the container nor a hook.
    syscalls.close_on_exec_from(_FIRST_LISTEN_FD + preserved)
    # A container's root must not read our memory, or reach the host's files through /proc/PID/{exe,fd,root}.
    syscalls.set_dumpable(0)
    signals.reset()
    return preserved


def listen_fds() -> int:
    """How many sockets systemd's socket activation passed to this process (sd_listen_fds(3))."""
    count = os.environ.get("LISTEN_FDS", "")
    mine = os.environ.get("LISTEN_PID", "") == str(os.getpid())
    return int(count) if mine and count.isdecimal() else 0


def with_listen_fds(process: dict[str, Any]) -> dict[str, Any]:
    """The process with the variables that tell it of its sockets; as process 1, whatever its pid is outside."""
    count = listen_fds()
    if not count:
        return process
    return {**process, "env": [*(process.get("env") or ()), f"LISTEN_FDS={count}", "LISTEN_PID=1"]}


def terminal_taker(given: Options) -> Callable[[int], None] | None:
    """Who takes a terminal's master: the socket that was named, or nobody."""
    path = given.text("--console-socket")
    if not path:
        return None

    def send(master: int) -> None:
        with errors.step("--console-socket"), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            rights = array.array("i", [master])
            connection.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            os.close(master)

    return send

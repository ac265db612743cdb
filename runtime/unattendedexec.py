"""A further process in any running container, made by a command, without its monitor (`joinedprocess`).

The command is the process's parent: it waits for it, or leaves it to whoever called the command.
"""

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from runtime import (
    birth,
    control,
    errors,
    joinedprocess,
    privilege,
    protocol,
    rootless,
    spec,
    state,
    syscalls,
    unattended,
)
from runtime.fields import Fields
from runtime.seccomp import filter as filters
from runtime.state import State
from runtime.terms import Terms
from runtime.values import frozen


@frozen
class Request:
    """What is to be executed. The standard streams are the caller's own."""

    root: str
    container: str
    process: dict[str, Any]  # the whole object, with nothing left to be inherited
    preserved_fds: int = 0
    pid_file: str = ""
    take_terminal: Callable[[int], None] | None = None
    ignore_paused: bool = False


def execute(request: Request) -> int:
    """Start the process; returns its pid once its program runs."""
    known = state.load(request.root, request.container)
    status = control.status(known)
    if status == "paused" and not request.ignore_paused:
        raise errors.WrongStatus(f"container {known.id}: is paused, so nothing would run in it; resume it first")
    if status not in {"created", "running", "paused"}:
        raise errors.WrongStatus(f"container {known.id}: container not running, but {status}")
    process = spec.parse_process(Fields(request.process, "process"))
    if process.terminal and request.take_terminal is None:
        raise errors.InvalidSpec("process.terminal: nobody takes the terminal; give --console-socket")
    first_process = control.open_first_process(known)
    try:
        return _execute_in(request, known, process, first_process)
    finally:
        os.close(first_process)


def _execute_in(request: Request, known: State, process: spec.Process, first_process: int) -> int:
    container = spec.parse(control.config(request.root, request.container))
    container, process = rootless.join(container, process, first_process)
    described = state.describe(
        known.id, "running", pid=known.pid, bundle=known.bundle, annotations=container.annotations
    )
    order = filters.order(container.seccomp, request.root, described)
    join = joinedprocess.Join(
        spec=container,
        process=process,
        cgroup=control.group(known),
        first_process=first_process,
        stdio=(0, 1, 2),
        order=order,
        terms=Terms(supervised=False, preserved_fds=request.preserved_fds, keeps_groups=privilege.groups_are_fixed()),
    )
    if any(namespace.kind == "pid" for namespace in container.namespaces):
        with errors.step("join the container's pid namespace"):  # for the child: we stay where we are
            syscalls.setns(first_process, syscalls.CLONE_NEWPID)
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    protocol.send(channel, {"start": True})
    pid = os.fork()
    if pid == 0:
        channel.close()
        joinedprocess.run(join, theirs)
    theirs.close()
    if order is not None:
        order.close()
    try:
        master = birth.await_created(channel, started=True)
        if master >= 0:
            assert request.take_terminal is not None, "a terminal that was not asked for"
            request.take_terminal(master)
        unattended.write_pid_file(request.pid_file, pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return pid

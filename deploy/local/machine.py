"""A node's machine: process 1 of namespaces of its own, which runs the agent as an init system would.

    supervisor ── outer (joins the LAN, waits) ── init (process 1) ── agent, launcher, monitors, containers

Whoever kills the outer process or the init pulls the plug of the whole machine: the kernel ends everything in a PID
namespace with its process 1. The agent alone may die; it is started again, after a moment.
"""

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from deploy.local import network
from runtime import syscalls

_FIRST_DELAY_S: Final = 0.1
_LAST_DELAY_S: Final = 5.0
_HEALTHY_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 10.0
_SIGNALS: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`address` has a prefix length, and so has `address6` unless it is empty; `tasks` holds the tasks' writable
    layers, `run` what no reboot keeps.
    """

    name: str
    address: str
    address6: str
    tasks: Path
    run: Path
    command: Sequence[str]


def main() -> NoReturn:
    """Never returns: this process is the machine until it ends."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.machine", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--address6", default="")
    parser.add_argument("--tasks", required=True, type=Path)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("command", nargs="+")
    machine = Machine(**vars(parser.parse_args()))
    network.plug_in(machine.name, machine.address, machine.address6)
    syscalls.unshare(
        syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC,
    )
    parent_lives, hold = os.pipe()
    init = os.fork()
    if init:
        os.close(parent_lives)
        _wait_for(init)
    os.close(hold)
    _die_with_parent(parent_lives)
    _prepare(machine)
    Init(machine.command).run()


def _die_with_parent(parent_lives: int) -> None:
    syscalls.set_parent_death_signal(signal.SIGKILL)
    readable, _, _ = select.select([parent_lives], [], [], 0)
    if readable:  # the pipe has ended: the parent died before the kernel was asked to watch it
        sys.exit(1)
    os.close(parent_lives)


def _wait_for(init: int) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(init, number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for whoever owns the cluster
    _, status = os.waitpid(init, 0)
    sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _prepare(machine: Machine) -> None:
    # First, so that no mount of this machine ever shows on the host.
    syscalls.set_propagation("/", syscalls.MS_REC | syscalls.MS_PRIVATE)
    # The host's /proc would show, and let the agent signal, processes by the pids of another namespace.
    _mount("proc", Path("/proc"))
    syscalls.sethostname(machine.name)
    # As /run is on any machine: it begins empty, and no disk has to be waited for.
    machine.run.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", machine.run)
    machine.tasks.mkdir(parents=True, exist_ok=True)
    if not _can_be_upper(machine.tasks):
        _say(f"{machine.tasks} cannot hold the writable side of an overlay; a tmpfs is mounted over it")
        _mount("tmpfs", machine.tasks)


def _mount(kind: str, target: Path) -> None:
    context = syscalls.fsopen(kind)
    syscalls.fsconfig_create(context)
    mount = syscalls.fsmount(context, 0)
    folder = os.open(target, os.O_PATH | os.O_DIRECTORY)
    syscalls.move_mount(mount, folder)
    for descriptor in (context, mount, folder):
        os.close(descriptor)


def _can_be_upper(folder: Path) -> bool:
    """Asks the kernel, by making an overlay there that is mounted nowhere."""
    probe = folder / ".probe"
    parts = {"lowerdir": probe / "lower", "upperdir": probe / "upper", "workdir": probe / "work"}
    for part in parts.values():
        part.mkdir(parents=True, exist_ok=True)
    context = syscalls.fsopen("overlay")
    try:
        for key, part in parts.items():
            syscalls.fsconfig_string(context, key, str(part))
        syscalls.fsconfig_create(context)
    except OSError:
        return False
    finally:
        os.close(context)
        _remove(probe)
    return True


def _remove(probe: Path) -> None:
    for folder, folders, _ in os.walk(probe, topdown=False):
        for name in folders:
            Path(folder, name).rmdir()
    probe.rmdir()


class Init:
    """Reaps every process, keeps the agent running, and stops it when asked to."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._agent = 0
        self._started = 0.0
        self._delay_s = _FIRST_DELAY_S

    def run(self) -> NoReturn:
        """One signal at a time, in order: blocked signals queue up, so there is no moment at which one is missed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._start()
        wake: float | None = None
        while True:
            received = _next_signal(None if wake is None else max(wake - time.monotonic(), 0))
            if received in {signal.SIGTERM, signal.SIGINT}:
                self._stop()
            if self._reap():
                wake = time.monotonic() + self._next_delay_s()
            if wake is not None and time.monotonic() >= wake:
                wake = None
                self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._agent = os.posix_spawn(self._command[0], self._command, os.environ, setsigmask=())

    def _reap(self) -> bool:
        """Whether the agent was among the dead."""
        agent_died = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return agent_died
            if pid == 0:
                return agent_died
            if pid == self._agent:
                self._agent, agent_died = 0, True
                _say(f"the agent ended with {os.waitstatus_to_exitcode(status)}")

    def _next_delay_s(self) -> float:
        """0.1, 0.2, 0.4, … 5 s; from the beginning after ten healthy seconds."""
        if time.monotonic() - self._started > _HEALTHY_S:
            self._delay_s = _FIRST_DELAY_S
        delay, self._delay_s = self._delay_s, min(self._delay_s * 2, _LAST_DELAY_S)
        return delay

    def _stop(self) -> NoReturn:
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        if self._agent:
            os.kill(self._agent, signal.SIGINT)  # the machine goes off: the agent does not come back (`agent.goodbye`)
        while self._agent and (left := deadline - time.monotonic()) > 0:
            _next_signal(left)
            self._reap()
        sys.exit(0)  # and the kernel ends the rest


def _next_signal(timeout_s: float | None) -> int | None:
    if timeout_s is None:
        return signal.sigwait(_SIGNALS)
    received = signal.sigtimedwait(_SIGNALS, timeout_s)
    return received.si_signo if received else None


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the log's disk may be full, and with this process everything would end
        print(f"{time.strftime('%FT%TZ', time.gmtime())} machine: {text}", flush=True)


if __name__ == "__main__":
    main()

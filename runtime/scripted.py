"""A container from the launcher: its monitor executes the script, and supervises what comes of it.

    launcher                                    monitor                              first process
    ────────                                    ───────                              ─────────────
    what was made [report, stdio, lock, listener, …] ──►
    the script                              ──► into its memory; clone            ──►
                                                                                     the script's steps
                                            ◄── end of a pipe: the program runs, or the process has ended

When a step fails nothing is lost but time: the monitor undoes what was made, and makes the container by itself, which
works or explains why not.
"""

import contextlib
import functools
import marshal
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn

from runtime import birth, cgroups, errors, execs, logs, monitor, protocol, spec, state, supervisor, syscalls
from runtime.cgrouplayout import Layout
from runtime.script import machine

KIND: Final = b"S"
"""How a packet of ours begins; what follows is marshalled, as both ends are one interpreter, forked."""

_STATE: Final = (
    '%s, "pid": %d, "pid_start": %d, "monitor_pid": %d, "monitor_start": %d, "created_ns": %d, "started_ns": %d}'
)
_PID_BITS: Final = 0xFFFFFFFF
_SETUP_TIMEOUT_MS: Final = birth.SETUP_TIMEOUT_S * 1000


class Made(NamedTuple):
    """What a monitor must know of a container that was made for it. Its configuration is in its folder."""

    request: dict[str, Any]  # without the configuration
    number: int
    folder: str
    cgroup: tuple[tuple[tuple[str, str], ...], str, str, tuple[str, ...]]  # a layout's two fields, path, folders
    own_pids: bool
    ready: int  # the cell that tells that only the program's execution was left
    born: int  # the cell with the first process's pid, when that is not the clone; else 0
    stdio: int  # how many standard streams came with the request
    log: tuple[str, int, int] | None  # path, most bytes of a file, most files
    state: str  # what can be known before of state.json's text


def hand_over(monitors: socket.SocketType, made: Made, parts: Sequence[bytes], fds: Sequence[int]) -> None:
    """For the launcher: pass a container on, with [report, stdio …, lock, listener, what the script is given …]."""
    packet = KIND + marshal.dumps((tuple(made), tuple(len(part) for part in parts)))
    if len(packet) > protocol.MAX_PACKET_BYTES:
        raise errors.ProtocolError(f"a container of {len(packet)} bytes; {protocol.MAX_PACKET_BYTES} are the most")
    protocol.send_packet(monitors, packet, fds)
    monitors.sendmsg(parts)


def known_before(container: str, bundle: str, cgroups_path: str) -> str:
    """What `Made.state` says."""
    text = state.text({"id": container, "status": "running", "bundle": bundle, "cgroups_path": cgroups_path})
    return text.removesuffix("}")


def received(
    packet: bytes, fds: list[int], channel: socket.SocketType, root: str, memory: machine.Memory
) -> "Container":
    """What was handed over, with the script in its place."""
    fields, sizes = marshal.loads(packet[len(KIND) :])  # noqa: S302 - from the launcher, of which we are a fork
    memory.receive(channel, sizes)
    return Container(Made(*fields), fds, root)


def run(
    packet: bytes,
    fds: list[int],
    channel: socket.SocketType,
    root: str,
    memory: machine.Memory,
    prepared: supervisor.Prepared,
) -> NoReturn:
    """Be the monitor of a container that was made."""
    container = received(packet, fds, channel, root, memory)
    channel.close()
    monitor.serve(container.made.number, fds[0], lambda: container.create(memory, prepared.start), prepared)


class StepFailedError(Exception):
    """Some step of a script was not done; nothing tells why."""


class Container:
    """The container that was made, and the descriptors that came with it."""

    def __init__(self, made: Made, fds: list[int], root: str) -> None:
        self.made = made
        self._root = root
        self._report, *rest = fds
        self._stdio = rest[: made.stdio]
        self._lock, self._listener, *self._given = rest[made.stdio :]
        self._log: logs.LogFile | None = None
        self._pipes: tuple[int, ...] = ()
        self._pid = 0

    def create(self, memory: machine.Memory, own_start: int) -> supervisor.Supervised:
        """Let the first process become the program. `own_start` is when this process started."""
        try:
            return self.execute(memory, own_start)
        except (StepFailedError, OSError):
            return self._start_again()

    def execute(self, memory: machine.Memory, own_start: int) -> supervisor.Supervised:
        """Likewise, without another way; raises StepFailedError and OSError."""
        made = self.made
        if not made.own_pids:
            syscalls.set_child_subreaper()
        if made.log is not None:
            self._log = logs.LogFile(made.log[0], max_bytes=made.log[1], max_files=made.log[2])
        ended = self._clone(memory)
        # While the first process sets itself up, on the other processor if there is one.
        known = self._known(own_start, time.time_ns())
        text = _STATE % (
            made.state,
            known.pid,
            known.pid_start,
            known.monitor_pid,
            known.monitor_start,
            known.created_ns,
            known.started_ns,
        )
        state.write_text(f"{made.folder}/{state.STATE_FILE}.new", text)
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        if not waiting.poll(_SETUP_TIMEOUT_MS) or not memory.was_done(made.ready):
            raise StepFailedError
        # What only the set-up needed.
        memory.discard()
        for fd in (ended, *self._stdio):
            os.close(fd)
        state.put_in_place(f"{made.folder}/{state.STATE_FILE}")
        os.close(self._lock)  # it is whole
        return self._supervised(known)

    def _clone(self, memory: machine.Memory) -> int:
        """Execute the script; a pipe that ends when the program runs, or when the first process has ended."""
        made, theirs = self.made, []
        if self._log is not None and not self._stdio:
            (ours_out, theirs_out), (ours_err, theirs_err) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            self._pipes, theirs = (ours_out, ours_err), [theirs_out, theirs_err]
        memory.give([*(self._stdio or theirs), *self._given])
        ours, tells = os.pipe2(os.O_CLOEXEC)
        self._pid = memory.run(syscalls.CLONE_NEWPID if made.own_pids and not made.born else 0)
        for fd in (tells, *theirs, *self._given):
            os.close(fd)
        if made.born:
            os.waitpid(self._pid, 0)
            self._pid = memory.cell(made.born) & _PID_BITS
        return ours

    def _known(self, own_start: int, now: int) -> state.State:
        request = self.made.request
        return state.State(
            id=request["container"],
            status="running",
            pid=self._pid,
            pid_start=state.process_start(self._pid, zombie=True),
            monitor_pid=os.getpid(),
            monitor_start=own_start,
            bundle=request["bundle"],
            cgroups_path=self.made.cgroup[2],
            created_ns=now,
            started_ns=now,
        )

    def _group(self) -> cgroups.Cgroup:
        controllers, unified, path, folders = self.made.cgroup
        return cgroups.Cgroup(layout=Layout(controllers=controllers, unified=unified), path=path, folders=folders)

    def _supervised(self, known: state.State) -> supervisor.Supervised:
        made, pid = self.made, self._pid
        return supervisor.Supervised(
            state=known,
            folder=made.folder,
            configured=functools.cache(lambda: _configured(made, pid)),
            own_pids=made.own_pids,
            poststart=(),
            cgroup=self._group(),
            pipes=self._pipes,
            log=self._log,
            master=-1,
            channel=None,
            listener=socket.SocketType(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, self._listener),
            scripted=True,
        )

    def _start_again(self) -> supervisor.Supervised:
        """Undo all, and make the container in the other way."""
        monitor.detach()
        config = state.load_config(self.made.folder)
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        for fd in (self._listener, *self._pipes):
            os.close(fd)
        if self._log is not None:
            self._log.close()
        group = self._group()
        group.kill_all()
        group.delete()
        state.remove_folder(self.made.folder)
        os.close(self._lock)
        body = {**self.made.request, "config": config}
        return monitor.create(monitor.parse(body, self._root, tuple(self._stdio), self._report))


def _configured(made: Made, pid: int) -> execs.Configured:
    """For the first further process: read what was asked for, and have forks born where the container's are."""
    if made.own_pids:
        birth.enter_pid_namespace_of(pid)
    config = state.load_config(made.folder)
    return execs.Configured(spec=spec.parse(config), process=config["process"])

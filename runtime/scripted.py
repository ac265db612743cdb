"""A container from the launcher: its monitor executes the script, and supervises what comes of it.

    launcher                                    monitor                              first process
    ────────                                    ───────                              ─────────────
    a beginning [stdio …, what it is given …] ──►
    the script's first part                 ──► into its memory; clone            ──►
    makes the rest                              listens                              enters namespaces and cgroup, waits
    what was made [reporter, lock, …]       ──►
    the script's second part                ──► into its memory; wake             ──►
                                            ◄── a byte: it has descriptors of its own
                                                                                     the other steps
                                            ◄── end of the pipe: the program runs, or the process has ended

When a step fails nothing is lost but time: the monitor undoes what was made, and makes the container by itself, which
works or explains why not. So it does when the launcher cannot make the rest.
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
from runtime.script.start import SHARED_FILES

KIND: Final = b"S"
"""How a beginning's packet begins; what follows is marshalled, as both ends are one interpreter, forked."""

_STATE: Final = (
    '%s, "pid": %d, "pid_start": %d, "monitor_pid": %d, "monitor_start": %d, "created_ns": %d, "started_ns": %d}'
)
_PID_BITS: Final = 0xFFFFFFFF
_EVENTS_SHIFT: Final = 32
"""Where `events` is in poll(2)'s struct, which begins with the descriptor."""
_SETUP_TIMEOUT_MS: Final = birth.SETUP_TIMEOUT_S * 1000


class Begun(NamedTuple):
    """What a monitor must know to begin."""

    folder: str
    own_pids: bool
    born: int  # the cell with the first process's pid, when that is not the clone; else 0
    opened: tuple[int, ...]  # the cells with what the first process opens while it shares our descriptors
    stdio: int  # how many standard streams came with the request
    log: tuple[str, int, int] | None  # path, most bytes of a file, most files


class Made(NamedTuple):
    """What a monitor must know of a container that was made for it. Its configuration is in its folder."""

    request: dict[str, Any]  # without the configuration
    number: int
    cgroup: tuple[tuple[tuple[str, str], ...], str, str, tuple[str, ...]]  # a layout's two fields, path, folders
    given: int  # the first cell of what the second part is given
    ready: int  # the cell that tells that only the program's execution was left; 0: there is no second part
    state: str  # what can be known before of state.json's text


def begin(monitors: socket.SocketType, begun: Begun, pieces: Sequence[machine.Piece], fds: Sequence[int]) -> None:
    """For the launcher: have a container begun, with [stdio …, what the first part is given …]. Raises PeerGone."""
    _send(monitors, begun, pieces, fds)


def go_on(monitors: socket.SocketType, made: Made, pieces: Sequence[machine.Piece], fds: Sequence[int]) -> None:
    """Pass the rest on, with [reporter, lock, what the second part is given …]."""
    _send(monitors, made, pieces, fds)


def give_up(monitors: socket.SocketType, made: Made, fds: Sequence[int]) -> None:
    """Have the monitor undo what was made, and make the container by itself, with [reporter, lock]."""
    _send(monitors, made._replace(ready=0), (), fds)


def _send(
    monitors: socket.SocketType, fields: Begun | Made, pieces: Sequence[machine.Piece], fds: Sequence[int]
) -> None:
    places = tuple((begin, len(piece)) for begin, piece in pieces)
    packet = KIND + marshal.dumps((tuple(fields), places))
    if len(packet) > protocol.MAX_PACKET_BYTES:
        raise errors.ProtocolError(f"a container of {len(packet)} bytes; {protocol.MAX_PACKET_BYTES} are the most")
    protocol.send_packet(monitors, packet, fds)
    if pieces:
        monitors.sendmsg([piece for _, piece in pieces])


def known_before(container: str, bundle: str, cgroups_path: str) -> str:
    """What `Made.state` says."""
    text = state.text({"id": container, "status": "running", "bundle": bundle, "cgroups_path": cgroups_path})
    return text.removesuffix("}")


def run(
    packet: bytes,
    fds: list[int],
    channel: socket.SocketType,
    root: str,
    memory: machine.Memory,
    prepared: supervisor.Prepared,
) -> NoReturn:
    """Be the monitor of a container that is begun with this packet."""
    container = Container(packet, fds, channel, memory)
    if not container.receive(channel):
        container.kill()
        os._exit(0)  # the launcher has ended
    channel.close()
    monitor.serve(container.made.number, container.report, lambda: container.create(root, prepared.start), prepared)


class StepFailedError(Exception):
    """Some step of a script was not done; nothing tells why."""


class Container:
    """A container that is begun, and the descriptors that came with it."""

    made: Made
    report: monitor.Reporter

    def __init__(self, packet: bytes, fds: list[int], channel: socket.SocketType, memory: machine.Memory) -> None:
        """Begin with what a packet says."""
        fields, places = marshal.loads(packet[len(KIND) :])  # noqa: S302 - from the launcher, of which we are a fork
        memory.receive(channel, places)
        self._begun = Begun(*fields)
        self._memory = memory
        self._stdio = fds[: self._begun.stdio]
        self._theirs = fds[self._begun.stdio :]  # of ours, what we close once the first process has its own
        self._lock = self._told = -1
        self._listener: socket.socket | None = None
        self._log: logs.LogFile | None = None
        self._pipes: tuple[int, ...] = ()
        self._pid = self._pid_start = 0
        with contextlib.suppress(OSError, errors.ContainerError):  # whoever starts again says why not
            self._begin()

    def _begin(self) -> None:
        begun, given = self._begun, self._theirs
        if not begun.own_pids:
            syscalls.set_child_subreaper()
        if begun.log is not None:
            self._log = logs.LogFile(begun.log[0], max_bytes=begun.log[1], max_files=begun.log[2])
        pipes: list[int] = []
        if self._log is not None and not self._stdio:
            (ours_out, theirs_out), (ours_err, theirs_err) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            self._pipes, pipes = (ours_out, ours_err), [theirs_out, theirs_err]
        self._told, told = os.pipe2(os.O_CLOEXEC)
        self._wake, monitor = os.eventfd(0, os.EFD_CLOEXEC), os.pidfd_open(os.getpid())
        self._theirs = [self._wake, monitor, told, *pipes, *given]
        polled = [fd | select.POLLIN << _EVENTS_SHIFT for fd in (self._wake, monitor)]
        self._memory.give([*polled, told, *(self._stdio or pipes), *given])
        new_pids = syscalls.CLONE_NEWPID if begun.own_pids and not begun.born else 0
        self._pid = self._memory.run(new_pids | SHARED_FILES)
        if begun.born:
            os.waitpid(self._pid, 0)
            self._pid = self._memory.cell(begun.born) & _PID_BITS
        # While the launcher makes the rest.
        state.reserve(f"{begun.folder}/{state.EXIT_FILE}")
        self._listener = protocol.listen(f"{begun.folder}/{state.SOCKET_FILE}")
        self._pid_start = state.process_start(self._pid, zombie=True)

    def receive(self, channel: socket.SocketType) -> bool:
        """Take the rest in; False: it does not come any more."""
        packet, fds = protocol.receive_packet(channel)
        if not packet:
            return False
        fields, places = marshal.loads(packet[len(KIND) :])  # noqa: S302 - as before
        self.made = Made(*fields)
        client, launcher, self._lock, *given = fds
        self.report = monitor.Reporter(client, launcher)
        if self.made.ready:
            self._memory.receive(channel, places)
            self._memory.give(given, self.made.given)
            self._theirs += given
        return True

    def create(self, root: str, own_start: int) -> supervisor.Supervised:
        """Let the first process become the program. `own_start` is when this process started."""
        try:
            return self.execute(own_start)
        except (StepFailedError, OSError):
            return self._start_again(root)

    def execute(self, own_start: int) -> supervisor.Supervised:
        """Likewise, without another way; raises StepFailedError and OSError."""
        made, folder = self.made, self._begun.folder
        if not self._pid_start or not made.ready:
            raise StepFailedError
        os.eventfd_write(self._wake, 1)
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
        state.write_text(f"{folder}/{state.STATE_FILE}.new", text)
        if not self._has_become_the_program():
            raise StepFailedError
        # What only the set-up needed.
        self._memory.discard()
        for fd in (self._told, *self._stdio):
            os.close(fd)
        state.put_in_place(f"{folder}/{state.STATE_FILE}")
        os.close(self._lock)  # it is whole
        return self._supervised(known)

    def _has_become_the_program(self) -> bool:
        waiting, process = select.poll(), os.pidfd_open(self._pid)
        waiting.register(self._told, select.POLLIN)
        waiting.register(process, select.POLLIN)
        waiting.poll(_SETUP_TIMEOUT_MS)
        # It has descriptors of its own, or has ended.
        os.close(process)
        waiting.unregister(process)
        self._close_theirs()
        if not os.read(self._told, 1):
            return False
        waiting.poll(_SETUP_TIMEOUT_MS)
        return self._memory.was_done(self.made.ready)

    def _close_theirs(self) -> None:
        opened = [self._memory.cell(number) for number in self._begun.opened]
        for fd in (*self._theirs, *(fd for fd in opened if 0 <= fd < machine.UNSET)):
            os.close(fd)
        self._theirs = []

    def kill(self) -> None:
        """End what was begun."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _known(self, own_start: int, now: int) -> state.State:
        request = self.made.request
        return state.State(
            id=request["container"],
            status="running",
            pid=self._pid,
            pid_start=self._pid_start,
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
        folder, own_pids, pid = self._begun.folder, self._begun.own_pids, self._pid
        assert self._listener is not None, "a container that was begun"
        return supervisor.Supervised(
            state=known,
            folder=folder,
            configured=functools.cache(lambda: _configured(folder, pid if own_pids else 0)),
            own_pids=own_pids,
            poststart=(),
            cgroup=self._group(),
            pipes=self._pipes,
            log=self._log,
            master=-1,
            channel=None,
            listener=self._listener,
            scripted=True,
        )

    def _start_again(self, root: str) -> supervisor.Supervised:
        """Undo all, and make the container in the other way."""
        monitor.detach()
        config = state.load_config(self._begun.folder)
        self.kill()
        if self._theirs:
            self._close_theirs()
        for fd in (self._told, *self._pipes):
            if fd >= 0:
                os.close(fd)
        if self._listener is not None:
            self._listener.close()
        if self._log is not None:
            self._log.close()
        group = self._group()
        group.kill_all()
        group.delete()
        state.remove_folder(self._begun.folder)
        os.close(self._lock)
        body = {**self.made.request, "config": config}
        return monitor.create(monitor.parse(body, root, tuple(self._stdio)), self.report)


def _configured(folder: str, pid: int) -> execs.Configured:
    """For the first further process: read what was asked for; forks are born where `pid` is, or with 0 here."""
    if pid:
        birth.enter_pid_namespace_of(pid)
    config = state.load_config(folder)
    return execs.Configured(spec=spec.parse(config), process=config["process"])

"""The monitor's life after creation: one loop over the signals, the output, and the clients' requests.

    verb     request fields                reply fields
    start    -                             -
    state    -                             state.json's fields
    kill     signal, all                   -
    exec     process, fds                  exec, pid [terminal's master]
    exec-status  exec                      running, exit_code, signal
    resize   rows, columns                 -            (of the container's own terminal)
    lease    until_ns                      -            (killed then, on CLOCK_BOOTTIME; said again, it is put off)
    pause    -                             -            (it stands still as long as whoever asked stays connected)
    attach   fds: sockets for stdout[, stderr]   -      (closed when the reader is too slow: the log has it all)

    events   {"event": "exec-exit", "exec", "exit_code", "signal"}      {"event": "exit", …exit.json}

Rules: nothing here blocks; nothing here has a timer but a lease, so an idle container costs nothing; the last act is
exit.json, and only then do the clients hear of it.
"""

import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from runtime import birth, errors, execs, logs, output, protocol, state, syscalls, terminal, timers, values
from runtime.cgroups import Cgroup
from runtime.execs import Configured
from runtime.seccomp import filter as filters
from runtime.spec import Hook, Spec
from runtime.values import frozen
from runtime.watch import Watch

MAX_CLIENTS: Final = 64


@frozen
class Supervised:
    """A container that was made. Descriptors that it does not have are -1."""

    state: state.State
    folder: str
    configured: Callable[[], Configured]
    own_pids: bool  # its processes end with the first one
    poststart: tuple[Hook, ...]
    cgroup: Cgroup
    pipes: tuple[int, ...]  # ours of stdout and stderr
    log: logs.LogFile | None
    master: int
    channel: socket.socket | None  # to the first process, while that waits for its start
    listener: socket.SocketType
    scripted: bool = False  # how it was made, for who wonders about its speed


@frozen
class Prepared:
    """What a monitor needs for any container, and can have before there is one."""

    watch: Watch
    signals: int  # tells of SIGCHLD
    start: int  # of this process, as `state.process_start` has it


def prepare() -> Prepared:
    """For a monitor that stands by, or has to hurry."""
    signals = syscalls.signalfd(frozenset({signal.SIGCHLD}))
    return Prepared(watch=Watch(), signals=signals, start=state.process_start(os.getpid()))


class Supervisor:
    """One container, from its creation to its exit."""

    def __init__(self, supervised: Supervised, prepared: Prepared) -> None:
        self._it = supervised
        self._state = supervised.state
        self._watch = prepared.watch
        self._signals = prepared.signals
        self._clients: dict[int, socket.socket] = {}
        self._pausing: set[int] = set()  # those of them that keep it still
        self._output = output.Output(
            (supervised.master,) if supervised.master >= 0 else supervised.pipes, supervised.log
        )
        self._exit: state.Exit | None = None
        self._hooking = False
        self._alarm = -1  # a timer, once there is a lease
        self._starting: dict[int, Callable[[], None]] = {}  # by pid: reads what a process tells of its start
        pidfd = os.pidfd_open(self._state.pid)
        self._execs = execs.Execs(supervised.configured, supervised.cgroup, pidfd, self._order_filter)
        self._verbs: dict[str, Callable[[int, socket.socket, protocol.Message], dict[str, Any] | None]] = {
            "start": self._start,
            "state": self._tell_state,
            "kill": self._kill,
            "exec": self._exec,
            "exec-status": self._exec_status,
            "resize": self._resize,
            "lease": self._lease,
            "pause": self._pause,
            "attach": self._attach,
        }

    def run(self, made: Callable[[], None]) -> None:
        """Serve until the container has ended and everybody knows. `made` tells whoever waits for the creation."""
        self._watch.add(self._signals, self._reap)
        self._watch.add(self._it.listener.fileno(), self._accept)
        for fd in self._output.ends:
            self._watch.add(fd, functools.partial(self._move_output, fd))
        if self._state.status == "running":
            self._after_start(made)
        else:
            made()
        # A child that ended before the signal was watched has left it pending: it is blocked since the launcher.
        while self._exit is None or self._hooking:
            self._watch.wait()
        self._finish(self._exit)

    # Children

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 128 * 16)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # A process tells how its start went before it ends: that news goes out first.
            self._settle(pid)
            if pid == self._state.pid:
                self._exit = self._describe_exit(status)
            elif (event := self._execs.ended(pid, status)) is not None:
                self._broadcast(event)

    def _settle(self, pid: int) -> None:
        while (waiting := self._starting.get(pid)) is not None:
            waiting()

    def _describe_exit(self, status: int) -> state.Exit:
        code, number = execs.split_status(status)
        kills = self._it.cgroup.oom_kills()
        return state.Exit(
            exit_code=code,
            signal=number,
            # The kernel may have taken another process of the group; then the first one's own words count.
            oom_killed=kills > 0 and code == 128 + signal.SIGKILL,
            oom_kills=kills,
            memory_limit_bytes=self._it.cgroup.memory_limit() if kills else None,
            finished_at_ns=time.time_ns(),
        )

    def _finish(self, ended: state.Exit) -> None:
        if not self._it.own_pids:
            # No pid namespace died with the first process, so its descendants may still be there.
            with contextlib.suppress(errors.SetupFailed):  # `delete` tries again and says what stays
                self._it.cgroup.kill_all()
        ended = values.replace(ended, lost_log_bytes=self._output.finish())
        state.write(os.path.join(self._it.folder, state.EXIT_FILE), ended)
        self._broadcast({"event": "exit", **values.asdict(ended)})

    def _move_output(self, fd: int) -> None:
        if not self._output.move(fd) and fd not in self._output.ends:
            self._watch.remove(fd)

    # Clients

    def _accept(self) -> None:
        try:
            client = protocol.accept(self._it.listener)
        except OSError:
            return
        if len(self._clients) >= MAX_CLIENTS or protocol.peer_uid(client) not in {0, os.geteuid()}:
            client.close()
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client
        self._watch.add(client.fileno(), lambda: self._serve(client))

    def _drop(self, client: socket.socket) -> None:
        number = client.fileno()
        if self._clients.pop(number, None) is not None:
            self._watch.remove(number)
            client.close()
            self._let_go_on(number)

    def _serve(self, client: socket.socket) -> None:
        try:
            message = protocol.receive(client)
        except BlockingIOError:
            return
        except (errors.ProtocolError, OSError):
            message = None
        if message is None:
            self._drop(client)
            return
        try:
            self._answer(client, message)
        except Exception:  # noqa: BLE001 - whatever a client sends, it must not end the container
            self._drop(client)
        finally:
            message.close()

    def _answer(self, client: socket.socket, message: protocol.Message) -> None:
        number, name = int(message.body["id"]), str(message.body.get("verb"))
        try:
            verb = self._verbs.get(name, self._unknown_verb)
            fields = verb(number, client, message)
            if fields is not None:
                self._send(client, protocol.ok(number, **fields))
        except errors.ContainerError as error:
            self._send(client, protocol.failed(number, error))
        except OSError as error:
            self._send(client, protocol.failed(number, errors.SetupFailed.at(name, error)))

    def _send(self, client: socket.socket, body: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """A client that does not read its answers is dropped; it may connect again and ask for the state."""
        try:
            protocol.send(client, body, fds)
        except (OSError, errors.PeerGone):
            self._drop(client)

    def _broadcast(self, event: dict[str, Any]) -> None:
        for client in list(self._clients.values()):
            self._send(client, event)

    # Verbs

    def _unknown_verb(self, _number: int, _client: socket.socket, message: protocol.Message) -> None:
        raise errors.ProtocolError(f"unknown verb {message.body.get('verb')!r}; known are {', '.join(self._verbs)}")

    def _start(self, number: int, client: socket.socket, _message: protocol.Message) -> None:
        channel = self._it.channel
        if self._state.status != "created" or channel is None:
            raise errors.WrongStatus(f"start: the container is {self._state.status}, not created")
        protocol.send(channel, {"start": True})
        self._state = values.replace(self._state, status="starting")
        self._starting[self._state.pid] = lambda: self._started(channel, number, client)
        self._watch.add(channel.fileno(), self._starting[self._state.pid])

    def _started(self, channel: socket.socket, number: int, client: socket.socket) -> None:
        message = protocol.receive(channel)
        del self._starting[self._state.pid]
        self._watch.remove(channel.fileno())
        channel.close()
        if message is not None:
            self._send(client, {"id": number, "error": message.body["error"]})
            return
        self._state = values.replace(self._state, status="running", started_ns=time.time_ns())
        with contextlib.suppress(OSError, errors.SetupFailed):  # a full disk: the monitor's own answer stays right
            state.write(os.path.join(self._it.folder, state.STATE_FILE), self._state)
        self._after_start(lambda: self._send(client, protocol.ok(number)))

    def _after_start(self, tell: Callable[[], None]) -> None:
        """Execute the poststart hooks in a fork, since output and clients go on meanwhile; then tell of the start."""
        hooks = self._it.poststart
        if not hooks:
            tell()
            return
        told = self._described(self._it.configured().spec)
        ended = birth.fork_hooks(hooks, told)
        self._hooking = True

        def have_ended() -> None:
            self._hooking = False
            self._watch.remove(ended)
            os.close(ended)
            tell()

        self._watch.add(ended, have_ended)

    def _tell_state(self, _number: int, _client: socket.socket, _message: protocol.Message) -> dict[str, Any]:
        return values.asdict(self._state)

    def _kill(self, _number: int, _client: socket.socket, message: protocol.Message) -> dict[str, Any]:
        number = message.body.get("signal")
        if type(number) is not int or not 0 <= number <= signal.SIGRTMAX:
            raise errors.ProtocolError(f"kill: signal must be a number from 0 to {signal.SIGRTMAX}, not {number!r}")
        self._signal(number, self._it.cgroup.pids() if message.body.get("all") else [self._state.pid])
        return {}

    def _signal(self, number: int, pids: Iterable[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            self._it.cgroup.let_die()

    def _lease(self, _number: int, _client: socket.socket, message: protocol.Message) -> dict[str, Any]:
        until_ns = message.body.get("until_ns")
        if type(until_ns) is not int or not 0 < until_ns < 2**63:
            raise errors.ProtocolError(f"lease: until_ns must be a moment of CLOCK_BOOTTIME, not {until_ns!r}")
        if self._alarm < 0:
            self._alarm = timers.create(time.CLOCK_BOOTTIME)
            self._watch.add(self._alarm, self._end_lease)
        timers.set_once(self._alarm, until_ns)
        return {}

    def _end_lease(self) -> None:
        """Whoever had to put it off did not: another container takes the place of this one soon."""
        with contextlib.suppress(BlockingIOError):  # it was put off a moment ago
            os.read(self._alarm, 8)
            self._signal(signal.SIGKILL, [self._state.pid, *self._it.cgroup.pids()])

    def _pause(self, _number: int, client: socket.socket, _message: protocol.Message) -> dict[str, Any]:
        """Whoever is killed while it reads the files leaves no container behind that stands still for good."""
        if self._state.status != "running":
            raise errors.WrongStatus(f"pause: the container is {self._state.status}, not running")
        self._pausing.add(client.fileno())
        try:
            self._it.cgroup.freeze()  # a wait, though of two seconds at most
        except errors.ContainerError:
            self._let_go_on(client.fileno())
            raise
        return {}

    def _let_go_on(self, number: int) -> None:
        """One that kept the container still does not any more; with the last of them it goes on."""
        if number in self._pausing:
            self._pausing.discard(number)
            if not self._pausing:
                with contextlib.suppress(errors.SetupFailed):  # told to go on, it does so later than we wait for
                    self._it.cgroup.thaw()

    def _exec(self, number: int, client: socket.socket, message: protocol.Message) -> None:
        if self._it.cgroup.is_frozen():
            raise errors.WrongStatus("exec: the container is paused, so nothing would run in it; resume it first")
        started = self._execs.start(message.body.get("process"), message.fds)

        def told() -> None:
            reply, fds = self._execs.told(started, number)
            if reply is not None:
                self._send(client, reply, fds)
                del self._starting[started.pid]
                self._watch.remove(started.channel.fileno())
                started.close()

        self._starting[started.pid] = told
        self._watch.add(started.channel.fileno(), told)

    def _order_filter(self) -> filters.Order | None:
        wanted = self._it.configured().spec
        return filters.order(wanted.seccomp, os.path.dirname(self._it.folder), self._described(wanted))

    def _described(self, wanted: Spec) -> dict[str, Any]:
        known = self._state
        return state.describe(known.id, "running", pid=known.pid, bundle=known.bundle, annotations=wanted.annotations)

    def _exec_status(self, _number: int, _client: socket.socket, message: protocol.Message) -> dict[str, Any]:
        return self._execs.status(message.body.get("exec"))

    def _resize(self, _number: int, _client: socket.socket, message: protocol.Message) -> dict[str, Any]:
        if self._it.master < 0:
            raise errors.WrongStatus("resize: the container has no terminal")
        rows, columns = (message.body.get(name) for name in ("rows", "columns"))
        if type(rows) is not int or type(columns) is not int or not (0 < rows < 65536 and 0 < columns < 65536):
            raise errors.ProtocolError(f"resize: rows and columns must be 1 to 65535, not {rows!r} and {columns!r}")
        terminal.resize(self._it.master, rows, columns)
        return {}

    def _attach(self, _number: int, _client: socket.socket, message: protocol.Message) -> dict[str, Any]:
        if not 1 <= len(message.fds) <= 2:
            raise errors.ProtocolError("attach: give one socket for stdout, and perhaps one for stderr")
        for stream, fd in enumerate(message.fds):
            self._output.attach(stream, socket.socket(fileno=os.dup(fd)))
        return {}

"""The launcher: a warm process that makes containers, with a monitor for each (`python -m runtime.launcher`).

Everything is imported once and frozen, so that the monitors, which its zygote forks, share nearly all its memory. The
launcher has one client, at the socket that it was started with; it ends when that socket closes, and monitors and
containers live on.

    verb           request fields                                        reply fields
    create         container, config, [overlay], [bundle], [log], start  id, pid, monitor_pid, scripted
                   descriptors: none, or stdin, stdout and stderr
    netns-create   path, [owner: path, uidMappings, gidMappings]         -
    netns-delete   path, [owner]                                         -
    ping           -                                                     pid

Rules: one thread, and no waiting. What takes time is done by another process, which reports through a pipe, so any
number can be on their way at once; one that ends without a report is reported as such. When there is nothing else to
do, one monitor is made in advance and stands by.
"""

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final

from runtime import (
    descriptors,
    errors,
    maker,
    monitor,
    netns,
    protocol,
    rehearsal,
    residence,
    signals,
    syscalls,
    zygote,
)
from runtime.script import machine
from runtime.values import frozen

_REPORT_BYTES: Final = 64 * 1024
_REHEARSALS: Final = 20


@frozen
class Job:
    """A request that another process is serving."""

    request: int
    what: str


class Launcher:
    """The loop."""

    def __init__(self, client: socket.socket, root: str) -> None:
        self._client = client
        self._root = root
        self._jobs: dict[int, Job] = {}  # by the pipe that the report comes through
        self._selector = selectors.DefaultSelector()
        self._signals = -1
        self._memory = machine.Memory()
        self._zygote: socket.socket | None = None
        self._standby: socket.socket | None = None  # leads to a monitor without a container
        self._may_prepare = True

    def run(self) -> None:
        """Serve until the client has gone."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._signals = syscalls.signalfd(frozenset({signal.SIGCHLD}))
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._selector.register(self._client, selectors.EVENT_READ)
        rehearsal.prepare(self._root)
        rehearsal.run(_REHEARSALS)
        rehearsal.supervise(self._root, self._memory, _REHEARSALS)
        # What was allocated until now is never looked at by a collection again, and so stays shared with the forks.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._start_zygote()
        # This process goes on for long, and shares with nobody what it makes from here on.
        gc.enable()
        self._maker = maker.Maker(self._root, self._memory)
        while True:
            # Not while others are on their way: it would take a processor from them.
            ready = self._selector.select(0 if self._may_prepare and not self._jobs else None)
            if not ready:
                self._prepare()
            for key, _ in ready:
                if key.fd == self._signals:
                    self._reap()
                elif key.fd in self._jobs:
                    self._relay(key.fd)
                elif not self._serve():
                    return

    def _reap(self) -> None:
        """Of zygotes that were killed."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 128 * 16)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    def _relay(self, pipe: int) -> None:
        """Pass on what a fork reports, or that it ended without a word."""
        job = self._jobs.pop(pipe)
        self._selector.unregister(pipe)
        report = os.read(pipe, _REPORT_BYTES)
        os.close(pipe)
        if report:
            if report != monitor.TOLD:
                self._send(protocol.decode(report))
            return
        self._send(protocol.failed(job.request, errors.PeerGone(f"{job.what}: its process was killed, or never made")))

    def _send(self, body: dict[str, Any]) -> None:
        with contextlib.suppress(errors.PeerGone):  # the next receive tells
            protocol.send(self._client, body)

    def _serve(self) -> bool:
        message = protocol.receive(self._client)
        if message is None:
            return False
        number = message.body.get("id")
        if type(number) is not int:
            message.close()
            raise errors.ProtocolError(f"request without a number: id is {number!r}")
        try:
            self._dispatch(number, message)
        except errors.ContainerError as error:
            self._send(protocol.failed(number, error))
        except OSError as error:
            self._send(protocol.failed(number, errors.SetupFailed.at("launcher", error)))
        finally:
            message.close()
        return True

    def _dispatch(self, number: int, message: protocol.Message) -> None:
        match message.body.get("verb"):
            case "create":
                self._create(number, message)
            case "netns-create":
                wanted = netns.parse(message.body)
                self._forward(number, f"netns-create {wanted.path}", message)
            case "netns-delete":
                for path in netns.parse_paths(message.body):
                    netns.delete(path)
                self._send(protocol.ok(number))
            case "ping":
                self._send(protocol.ok(number, pid=os.getpid()))
            case verb:
                raise errors.ProtocolError(f"unknown verb {verb!r}")

    def _create(self, number: int, message: protocol.Message) -> None:
        """Make the container, as far as that can be done here, and have a monitor go on."""
        with self._reported(number, f"create {message.body.get('container')}") as pipe:
            report = monitor.Reporter(client=self._client.fileno(), launcher=pipe)
            try:
                self._hand_to(self._take_monitor(), message, report)
            except errors.PeerGone:  # it was killed while it stood by, or its zygote was before
                self._hand_to(self._new_monitor(), message, report)

    def _hand_to(self, monitors: socket.socket, message: protocol.Message, report: monitor.Reporter) -> None:
        with monitors:
            if not self._maker.make(message, report, monitors):
                protocol.send(monitors, message.body, [*report, *message.fds])

    def _forward(self, number: int, what: str, message: protocol.Message) -> None:
        with self._reported(number, what) as report:
            self._ask_zygote(message.body, report)

    @contextlib.contextmanager
    def _reported(self, number: int, what: str) -> Iterator[int]:
        """The descriptor by which another process reports: a reply for the client, or that the client has it."""
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            yield theirs
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._jobs[ours] = Job(request=number, what=what)
        self._selector.register(ours, selectors.EVENT_READ)

    def _prepare(self) -> None:
        self._may_prepare = False
        self._standby = self._new_monitor()

    def _take_monitor(self) -> socket.socket:
        taken, self._standby, self._may_prepare = self._standby, None, True
        return taken or self._new_monitor()

    def _new_monitor(self) -> socket.socket:
        """A channel to a monitor that stands by, or will do so soon."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._ask_zygote(None, theirs.fileno())
        return ours

    def _ask_zygote(self, body: dict[str, Any] | None, fd: int) -> None:
        """Have it serve a request, or fork a monitor when there is none."""
        try:
            zygote.ask(self._zygote or self._start_zygote(), body, fd)
        except errors.PeerGone:  # it was killed
            zygote.ask(self._start_zygote(), body, fd)

    def _start_zygote(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            if os.fork() == 0:
                # All that is the launcher's, and its requests': whoever waits must see when the launcher ends.
                descriptors.close_others({0, 1, 2, self._signals, theirs.fileno()})
                zygote.run(theirs, self._signals, self._root, self._memory)
        if self._zygote is not None:
            self._zygote.close()
        self._zygote = ours
        return ours


def _settle(client: socket.socket) -> None:
    """Make the process a good parent: nothing of the place where it was started reaches the containers."""
    os.closerange(3, client.fileno())
    os.closerange(client.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.umask(0o022)
    signals.reset()
    # A container's root must not read our memory, or reach the host's files through /proc/PID/{exe,fd,root}.
    syscalls.set_dumpable(0)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if null > 2:
        os.close(null)


_USAGE: Final = "usage: python -m runtime.launcher --socket-fd N --root DIR [--cgroup PATH]"


def _options(arguments: list[str]) -> tuple[int, str, str]:
    """The options. Without argparse, whose modules every fork would carry along."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    group = given.pop("--cgroup", "")
    if len(arguments) % 2 or set(given) != {"--socket-fd", "--root"} or not given["--socket-fd"].isdecimal():
        raise SystemExit(_USAGE)
    return int(given["--socket-fd"]), given["--root"], group


def main() -> None:
    """Run the launcher."""
    socket_fd, root, group = _options(sys.argv[1:])
    root = os.path.abspath(root)
    os.makedirs(root, 0o700, exist_ok=True)
    client = socket.socket(fileno=socket_fd)
    client.set_inheritable(False)
    if group:
        try:
            residence.enter(group)
        except errors.ContainerError as error:  # containers are more than where their monitors are
            sys.stderr.write(f"launcher: stays where it was started: {error.message}\n")
    _settle(client)
    Launcher(client, root).run()


if __name__ == "__main__":
    main()

"""The launcher: a small warm process that forks a monitor for each container (`python -m runtime.launcher`).

Everything is imported once and frozen, so a fork shares nearly all its memory. The launcher has one client, at the
socket that it was started with; it ends when that socket closes, and monitors and containers live on.

    verb           request fields                                        reply fields
    create         container, config, [overlay], [bundle], [log], start  id, pid, monitor_pid
                   descriptors: none, or stdin, stdout and stderr
    netns-create   path, [owner: path, uidMappings, gidMappings]         -
    netns-delete   path, [owner]                                         -
    ping           -                                                     pid

Rules: one thread, and no waiting. A request that takes time is served by a fork, which reports through a pipe, so
any number can be on their way at once; a fork that ends without a report is reported as such. When there is nothing
else to do, one fork is made in advance and stands by as the next monitor.
"""

import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from runtime import errors, monitor, netns, protocol, rehearsal, signals, syscalls

_REPORT_BYTES: Final = 64 * 1024
_REHEARSALS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request that a fork is serving."""

    request: int
    pid: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """A monitor without a container: the next `create` is its to do. It ends when its channel closes."""

    pid: int
    channel: socket.socket


class Launcher:
    """The loop."""

    def __init__(self, client: socket.socket, root: str) -> None:
        self._client = client
        self._root = root
        self._jobs: dict[int, Job] = {}  # by the pipe that the report comes through
        self._selector = selectors.DefaultSelector()
        self._signals = -1
        self._standby: Standby | None = None
        self._may_prepare = True

    def run(self) -> None:
        """Serve until the client has gone."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        self._signals = syscalls.signalfd(frozenset({signal.SIGCHLD}))
        self._selector.register(self._signals, selectors.EVENT_READ)
        self._selector.register(self._client, selectors.EVENT_READ)
        rehearsal.prepare(self._root)
        rehearsal.run(_REHEARSALS)
        # What was allocated until now is never looked at by a collection again, and so stays shared with the forks.
        gc.collect()
        gc.freeze()
        gc.disable()
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
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 128 * 16)
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if self._standby is not None and pid == self._standby.pid:
                    self._standby.channel.close()
                    self._standby, self._may_prepare = None, True

    def _relay(self, pipe: int) -> None:
        """Pass on what a fork reports, or that it ended without a word."""
        job = self._jobs.pop(pipe)
        self._selector.unregister(pipe)
        report = os.read(pipe, _REPORT_BYTES)
        os.close(pipe)
        if report:
            self._send(protocol.decode(report))
            return
        self._send(protocol.failed(job.request, errors.PeerGone(f"{job.what}: process {job.pid} was killed")))

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
                self._fork(number, f"netns-create {wanted.path}", lambda report: _make_netns(number, wanted, report))
            case "netns-delete":
                for path in netns.parse_paths(message.body):
                    netns.delete(path)
                self._send(protocol.ok(number))
            case "ping":
                self._send(protocol.ok(number, pid=os.getpid()))
            case verb:
                raise errors.ProtocolError(f"unknown verb {verb!r}")

    def _create(self, number: int, message: protocol.Message) -> None:
        what = f"create {message.body.get('container')}"
        standby, self._standby, self._may_prepare = self._standby, None, True
        if standby is None:
            self._fork(number, what, lambda report: monitor.run(message.body, self._root, message.fds, report))
            return
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            protocol.send(standby.channel, message.body, [theirs, *message.fds])
            self._expect(ours, Job(request=number, pid=standby.pid, what=what))
        except errors.PeerGone:  # it was killed; the reaper will see
            os.close(ours)
            self._fork(number, what, lambda report: monitor.run(message.body, self._root, message.fds, report))
        finally:
            os.close(theirs)
            standby.channel.close()

    def _prepare(self) -> None:
        self._may_prepare = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = os.fork()
            except OSError:  # no process to spare: the next creation forks by itself, or says why it cannot
                ours.close()
                return
            if pid == 0:
                ours.close()
                self._leave()
                monitor.stand_by(theirs, self._root, lambda: rehearsal.run(1))
        self._standby = Standby(pid=pid, channel=ours)

    def _fork(self, number: int, what: str, job: Callable[[int], NoReturn]) -> None:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            os.close(ours)
            os.close(theirs)
            raise
        if pid == 0:
            os.close(ours)
            self._leave()
            job(theirs)
        os.close(theirs)
        self._expect(ours, Job(request=number, pid=pid, what=what))

    def _expect(self, report: int, job: Job) -> None:
        self._jobs[report] = job
        self._selector.register(report, selectors.EVENT_READ)

    def _leave(self) -> None:
        """Close, in a fork, everything that is the launcher's: its client must see when the launcher ends."""
        self._selector.close()
        self._client.close()
        if self._standby is not None:
            self._standby.channel.close()
        for fd in (self._signals, *self._jobs):
            os.close(fd)
        self._jobs.clear()


def _make_netns(number: int, wanted: netns.Pins, report: int) -> NoReturn:
    reply = protocol.ok(number)
    try:
        netns.create(wanted)
    except errors.ContainerError as error:
        reply = protocol.failed(number, error)
    finally:
        os.write(report, protocol.encode(reply))
        os._exit(0)


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


_USAGE: Final = "usage: python -m runtime.launcher --socket-fd N --root DIR"


def _options(arguments: list[str]) -> tuple[int, str]:
    """The two options. Without argparse, whose modules every fork would carry along."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if len(arguments) != 4 or set(given) != {"--socket-fd", "--root"} or not given["--socket-fd"].isdecimal():
        raise SystemExit(_USAGE)
    return int(given["--socket-fd"]), given["--root"]


def main() -> None:
    """Run the launcher."""
    socket_fd, root = _options(sys.argv[1:])
    root = os.path.abspath(root)
    os.makedirs(root, 0o700, exist_ok=True)
    client = socket.socket(fileno=socket_fd)
    client.set_inheritable(False)
    _settle(client)
    Launcher(client, root).run()


if __name__ == "__main__":
    main()

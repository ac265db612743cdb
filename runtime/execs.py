"""The further processes (`exec`) of one container, as its monitor keeps them."""

import os
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runtime import errors, joinedprocess, protocol, spec
from runtime.cgroups import Cgroup
from runtime.fields import Fields
from runtime.seccomp import filter as filters
from runtime.values import frozen

MAX_RUNNING: Final = 256
_REMEMBERED: Final = 64


@dataclass(slots=True, kw_only=True)
class Exec:
    """One process. Its program runs when the channel has ended without an error."""

    number: int
    pid: int
    channel: socket.socket
    master: int = -1
    failed: bool = False

    def close(self) -> None:
        """Let go of what was needed for the start only."""
        self.channel.close()
        if self.master >= 0:
            os.close(self.master)


@frozen
class Configured:
    """What the container was asked for: as a value, and its `process` as it was written."""

    spec: spec.Spec
    process: Mapping[str, Any]


def split_status(status: int) -> tuple[int, int]:
    """A wait(2) status as exit code (128 + N for signal N) and signal (0 for none)."""
    code = os.waitstatus_to_exitcode(status)
    return (code, 0) if code >= 0 else (128 - code, -code)


class Execs:
    """Starts processes in the container, and remembers how the last ones ended."""

    def __init__(
        self,
        configured: Callable[[], Configured],
        cgroup: Cgroup,
        pidfd: int,
        order: Callable[[], filters.Order | None],
    ) -> None:
        self._configured = configured
        self._cgroup = cgroup
        self._pidfd = pidfd
        self._order = order
        self._last = 0
        self._running: dict[int, Exec] = {}  # by pid
        self._ended: dict[int, tuple[int, int]] = {}  # by number

    def start(self, wanted: Any, fds: tuple[int, ...]) -> Exec:
        """Fork the process. Without a terminal `fds` are its stdin, stdout and stderr, or none for /dev/null."""
        if len(self._running) >= MAX_RUNNING:
            raise errors.WrongStatus(f"exec: {MAX_RUNNING} processes run already; end some of them")
        process = self.configure(wanted)
        if len(fds) not in {0, 3}:
            raise errors.ProtocolError(f"exec: {len(fds)} descriptors; give none, or stdin, stdout and stderr")
        stdio = (fds[0], fds[1], fds[2]) if fds else (-1, -1, -1)
        order = self._order()
        join = joinedprocess.Join(
            spec=self._configured().spec,
            process=process,
            cgroup=self._cgroup.now(),
            first_process=self._pidfd,
            stdio=stdio,
            order=order,
        )
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            protocol.send(channel, {"start": True})
            pid = self._fork()
            if pid == 0:
                channel.close()
                joinedprocess.run(join, theirs)
        except BaseException:
            channel.close()
            raise
        finally:
            theirs.close()
            if order is not None:
                order.close()
        self._last += 1
        self._running[pid] = Exec(number=self._last, pid=pid, channel=channel)
        return self._running[pid]

    def _fork(self) -> int:
        """Into the container's pid namespace; that of an ended process 1 has no room, which the kernel calls ENOMEM."""
        try:
            return os.fork()
        except OSError as error:
            if select.select([self._pidfd], [], [], 0)[0]:
                raise errors.WrongStatus("exec: the container has ended") from None
            raise errors.SetupFailed.at("exec: fork", error) from None

    def configure(self, wanted: Any) -> spec.Process:
        """The process as asked for; what is not said is as in the container, but for the terminal."""
        if not isinstance(wanted, dict):
            raise errors.InvalidSpec("process: must be an object")
        inherited = {key: value for key, value in self._configured().process.items() if key not in _NOT_INHERITED}
        return spec.parse_process(Fields({**inherited, **wanted}, "process"))

    def told(self, started: Exec, request: int) -> tuple[dict[str, Any] | None, tuple[int, ...]]:
        """Read the process's channel; returns the reply to the client, and descriptors, once all is known."""
        message = protocol.receive(started.channel)
        if message is None:
            fds = (started.master,) if started.master >= 0 else ()
            return protocol.ok(request, exec=started.number, pid=started.pid), fds
        if "error" in message.body:
            started.failed = True
            return {"id": request, "error": message.body["error"]}, ()
        if message.fds:
            started.master = message.fds[0]
        return None, ()

    def ended(self, pid: int, status: int) -> dict[str, Any] | None:
        """Note a reaped child; returns the event, or None when it was no exec (or one that never ran)."""
        found = self._running.pop(pid, None)
        if found is None or found.failed:
            return None
        code, number = split_status(status)
        self._ended[found.number] = (code, number)
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return {"event": "exec-exit", "exec": found.number, "exit_code": code, "signal": number}

    def status(self, number: Any) -> dict[str, Any]:
        """Whether a process runs, or how it ended."""
        if number in self._ended:
            code, signal = self._ended[number]
            return {"running": False, "exit_code": code, "signal": signal}
        if any(running.number == number for running in self._running.values()):
            return {"running": True}
        raise errors.UnknownContainer(f"exec {number!r}: is not known (the last {_REMEMBERED} are remembered)")


_NOT_INHERITED: Final = frozenset({"args", "terminal", "consoleSize", "oomScoreAdj"})

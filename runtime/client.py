"""The runtime for blocking programs: start a launcher, create containers, talk to their monitors, clean up.

    with client.Launcher.spawn("/var/lib/orch/containers") as launcher:
        launcher.create("web", config, overlay=overlay, log={"path": "/var/log/web.log"})
    with client.adopt(root, "web") as monitor:
        monitor.kill(signal.SIGTERM)
        print(monitor.wait().exit_code)
    client.delete(root, "web")

One rule: a container is known by its folder, never by a connection; whoever finds the folder can adopt it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Self

from runtime import cgroups, errors, protocol, removal, sealed, state
from runtime.state import Exit, State

_PACKAGE_PARENT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFAULT_TIMEOUT_S: Final = 150.0
_MONITOR_END_S: Final = 5.0


class _Connection:
    """Requests and replies over one socket; events that come in between are kept in order."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.socket = connection
        self._name = name
        self._last = 0
        self._events: list[dict[str, Any]] = []

    def call(self, verb: str, *, fds: Sequence[int] = (), **fields: Any) -> protocol.Message:
        """Send a request and wait for its reply (150 s at most); raises the error that it tells."""
        self._last += 1
        protocol.send(self.socket, {"id": self._last, "verb": verb, **fields}, fds)
        while True:
            message = self._receive(DEFAULT_TIMEOUT_S)
            if message.body.get("id") == self._last:
                return protocol.Message(body=protocol.result(message.body), fds=message.fds)
            if "event" in message.body:
                self._events.append(message.body)

    def event(self, name: str, timeout_s: float | None, **matching: Any) -> dict[str, Any]:
        """The first event of this name with these fields, received already or still to come."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        wanted = {"event": name, **matching}.items()
        while True:
            for event in self._events:
                if wanted <= event.items():
                    self._events.remove(event)
                    return event
            body = self._receive(None if until is None else max(until - time.monotonic(), 0.001)).body
            if "event" in body:
                self._events.append(body)

    def _receive(self, timeout_s: float | None) -> protocol.Message:
        self.socket.settimeout(timeout_s)
        message = protocol.receive(self.socket)
        if message is None:
            raise errors.PeerGone(f"{self._name} has ended")
        return message

    def close(self) -> None:
        """Close the connection; nothing ends with it."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Launcher(_Connection):
    """The launcher's one client."""

    def __init__(self, connection: socket.socket, process: "subprocess.Popen[bytes] | None" = None) -> None:
        super().__init__(connection, "the launcher")
        self.process = process

    @classmethod
    def spawn(cls, root: str, group: str = "") -> Self:
        """Start a launcher for this state folder, in a control group of its own or in the caller's."""
        process, connection = spawn(root, group)
        return cls(connection, process)

    def create(
        self,
        container: str,
        config: dict[str, Any],
        *,
        overlay: dict[str, Any] | None = None,
        log: dict[str, Any] | None = None,
        bundle: str = "",
        start: bool = True,
        stdio: Sequence[int] = (),
    ) -> dict[str, Any]:
        """Create a container, and start it unless told not to; returns its id, pid and monitor_pid.

        `scripted` in it tells whether the container was plain (`script.plain`), and so was made the fast way.
        """
        fields = {"overlay": overlay, "log": log, "bundle": bundle, "start": start}
        return self.call("create", fds=stdio, container=container, config=config, **fields).body

    def create_network(self, path: str, *, owner: dict[str, Any] | None = None) -> None:
        """Make a network namespace that is pinned at `path`, with its loopback up.

        With an owner, `{path, uidMappings, gidMappings}`, it belongs to a new user namespace that is pinned as well.
        """
        self.call("netns-create", path=path, owner=owner)

    def delete_network(self, path: str, *, owner: str | None = None) -> None:
        """Unpin a network namespace, and the user namespace that it belongs to; none there is no error."""
        self.call("netns-delete", path=path, owner=owner)

    def ping(self) -> int:
        """The launcher's pid."""
        return int(self.call("ping").body["pid"])

    def close(self) -> None:
        """End the launcher; containers live on."""
        super().close()
        if self.process is not None:
            self.process.wait(timeout=_MONITOR_END_S)


class Monitor(_Connection):
    """A connection to one container's monitor."""

    def __init__(self, connection: socket.socket, root: str, container: str) -> None:
        super().__init__(connection, f"the monitor of {container}")
        self.root = root
        self.container = container

    def start(self) -> None:
        """Let a created container run its program."""
        self.call("start")

    def state(self) -> State:
        """The state as the monitor has it."""
        return State(**self.call("state").body)

    def kill(self, number: int = signal.SIGTERM, *, everybody: bool = False) -> None:
        """Send a signal to the first process, or to every process of the container."""
        self.call("kill", signal=int(number), all=everybody)

    def pause(self) -> None:
        """Freeze every process of the container until this connection is closed."""
        self.call("pause")

    def wait(self, timeout_s: float | None = None) -> Exit:
        """Wait for the end; raises TimeoutError, and PeerGone when the monitor was killed."""
        with contextlib.suppress(errors.PeerGone):
            self.event("exit", timeout_s)
        ended = state.load_exit(self.root, self.container)
        if ended is None:
            raise errors.PeerGone(f"container {self.container}: its monitor was killed, so nobody saw how it ended")
        return ended

    def execute(
        self, process: dict[str, Any], *, stdio: Sequence[int] = (), **fields: Any
    ) -> tuple[int, int, int | None]:
        """Run a further process: its number, its pid, and the terminal's master when it asked for a terminal."""
        reply = self.call("exec", fds=stdio, process={**process, **fields})
        master = reply.fds[0] if reply.fds else None
        return int(reply.body["exec"]), int(reply.body["pid"]), master

    def wait_exec(self, number: int, timeout_s: float | None = None) -> int:
        """Wait for the end of a further process; its exit code."""
        with contextlib.suppress(errors.PeerGone):  # what it said before it ended may still be on its way
            known = self.call("exec-status", exec=number).body
            if not known["running"]:
                return int(known["exit_code"])
        return int(self.event("exec-exit", timeout_s, exec=number)["exit_code"])

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's own terminal."""
        self.call("resize", rows=rows, columns=columns)

    def attach(self, *sockets: int) -> None:
        """Copy the output from now on to these sockets (stdout, stderr); the log keeps getting it."""
        self.call("attach", fds=sockets)


def spawn(root: str, group: str = "") -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """Start a launcher; returns its process, and the socket that it serves and lives by.

    `group`: the control group that it lives in with its monitors (`residence`); empty: that of the caller. It runs from
    a sealed copy of the interpreter in memory (see `sealed`).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    interpreter = sealed.copy(os.path.realpath(sys.executable))
    command = [sys.executable, "-S", "-m", "runtime.launcher", "--socket-fd", str(theirs.fileno()), "--root", root]
    command += ["--cgroup", group] if group else []
    try:
        process = subprocess.Popen(
            command,
            executable=f"/proc/self/fd/{interpreter}",
            cwd=_PACKAGE_PARENT,
            env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), interpreter],
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(interpreter)
    return process, ours


def adopt(root: str, container: str) -> Monitor:
    """Connect to a running container's monitor; raises UnknownContainer, or PeerGone when it has ended."""
    known = state.load(root, container)
    if not known.monitor_pid:
        raise errors.PeerGone(f"container {container}: has no monitor, since orchrun made it; ask orchrun")
    if known.status == "stopped":
        raise errors.PeerGone(f"container {container}: has ended")
    path = os.path.join(state.folder(root, container), state.SOCKET_FILE)
    try:
        return Monitor(protocol.connect(path), root, container)
    except (ConnectionRefusedError, FileNotFoundError):
        raise errors.PeerGone(f"container {container}: has ended") from None


def list_containers(root: str) -> list[State]:
    """Every container below this state folder, by id. One that is only half created is not there yet."""
    found = []
    for name in state.names(root):
        with contextlib.suppress(errors.ContainerError):
            found.append(state.load(root, name))
    return found


def cgroup(root: str, container: str) -> cgroups.Cgroup:
    """The container's cgroup: for statistics, and to freeze and thaw it."""
    return cgroups.of(state.load(root, container).cgroups_path)


def delete(root: str, container: str, *, force: bool = False, layout: cgroups.Layout | None = None) -> None:
    """Remove what is left of a container (see `removal.delete`)."""
    removal.delete(root, container, force=force, layout=layout)

"""A command that a monitor runs in its container, for an event loop: pipes or a terminal, and its end."""

import asyncio
import collections
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from agent.adapters.wire import Connection
from agent.errors import NoSuchTask, StartFailed
from protos.orch.v1 import control_pb2 as cpb
from runtime import errors, protocol, terminal

MAX_QUEUED_BYTES = 256 * 1024
LATE_S = 5.0
QUIET_S = 0.5
LEFT_BYTES = 1 << 20
"""When the command has ended, what it has written is still in the pipes: at most a pipe's largest size (pipe(7)). The
output ends after so many bytes, or when nothing came for half a second: what comes then is a descendant's.
"""

_END_OF_TRANSMISSION = b"\x04"


class MonitorExec:
    """One command. Made by `start`."""

    def __init__(self, connection: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._monitor = Connection(connection, "the monitor", on_event=self._heard, on_end=self._lost)
        self._number = 0
        self._codes: dict[int, int] = {}  # the monitor tells of every command of the container
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._output = _Output()
        self._input: _Input | None = None
        self._master = self._pidfd = -1

    @classmethod
    async def start(
        cls, connection: socket.socket, wanted: cpb.ExecStart, *, environment: Sequence[str]
    ) -> "MonitorExec":
        """Run the command. Raises StartFailed or NoSuchTask."""
        command = cls(connection)
        try:
            await command._run(wanted, environment)
        except errors.PeerGone as error:
            await command.close()
            raise NoSuchTask(f"the container has ended: {error.message}") from error
        except errors.ContainerError as error:
            await command.close()
            raise StartFailed(error.message, exit_code=error.exit_code) from error
        except BaseException:
            await command.close()
            raise
        return command

    async def write(self, data: bytes) -> None:
        if self._input is not None:
            await self._input.write(data)

    async def close_stdin(self) -> None:
        if self._input is None:
            return
        if self._master >= 0:
            await self._input.write(_END_OF_TRANSMISSION)  # closing a terminal would hang up
        else:
            self._input.close()

    async def resize(self, rows: int, columns: int) -> None:
        if self._master >= 0:
            terminal.resize(self._master, min(rows, 65535), min(columns, 65535))

    async def signal(self, number: int) -> None:
        if self._pidfd >= 0 and 0 < number <= signal.SIGRTMAX:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def output(self) -> AsyncGenerator[tuple[cpb.LogStream.ValueType, bytes], None]:
        return self._output.chunks()

    async def exit_code(self) -> int:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        if not self._ended.done():
            await self.signal(signal.SIGKILL)
            self._ended.cancel()
        self._monitor.close()
        self._output.close()
        if self._input is not None:
            self._input.close()
        for fd in (self._master, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self._master = self._pidfd = -1

    async def _run(self, wanted: cpb.ExecStart, environment: Sequence[str]) -> None:
        process = _process(wanted, environment)
        with contextlib.ExitStack() as theirs:
            pipes = [] if wanted.tty else self._pipes(theirs)
            reply = await self._ask([end for end, _ in pipes], process)
        self._number = int(reply.body["exec"])
        if wanted.tty:
            (self._master,) = reply.fds
            await self._output.read_from(os.dup(self._master), cpb.LOG_STREAM_STDOUT)
            self._input = await _Input.to(os.dup(self._master))
        else:
            (_, stdin), (_, stdout), (_, stderr) = pipes
            await self._output.read_from(stdout, cpb.LOG_STREAM_STDOUT)
            await self._output.read_from(stderr, cpb.LOG_STREAM_STDERR)
            self._input = await _Input.to(stdin)
            if not wanted.stdin:
                self._input.close()
        self._settle()

    async def _ask(self, fds: list[int], process: dict[str, Any]) -> protocol.Message:
        """What the monitor answers. Whoever does not wait for it any more leaves no command behind: it may have been
        started already, so it is waited for all the same, to be killed.
        """
        asking = asyncio.ensure_future(self._monitor.call("exec", fds, process=process))
        try:
            reply = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.wait([asking], timeout=LATE_S)
            if asking.done() and not asking.cancelled() and asking.exception() is None:
                self._hold(asking.result())
                asking.result().close()
            asking.cancel()
            raise
        self._hold(reply)
        return reply

    def _hold(self, reply: protocol.Message) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self._pidfd = os.pidfd_open(int(reply.body["pid"]))

    @staticmethod
    def _pipes(theirs: contextlib.ExitStack) -> list[tuple[int, int]]:
        """Their end and ours of stdin, stdout and stderr; theirs are closed with the stack."""
        read, write = os.pipe2(os.O_CLOEXEC)
        pairs = [(read, write)]
        for _ in ("stdout", "stderr"):
            read, write = os.pipe2(os.O_CLOEXEC)
            pairs.append((write, read))
        for end, _ in pairs:
            theirs.callback(os.close, end)
        return pairs

    def _heard(self, event: dict[str, Any]) -> None:
        if event["event"] == "exec-exit":
            self._codes[int(event["exec"])] = int(event["exit_code"])
            self._settle()

    def _lost(self) -> None:
        """The container has ended, and every command in it."""
        self._codes.setdefault(self._number, 128 + signal.SIGKILL)
        self._settle()

    def _settle(self) -> None:
        if self._number and self._number in self._codes and not self._ended.done():
            self._ended.set_result(self._codes[self._number])
            self._output.finish()


class _Output:
    """What comes out of the command, in the order in which it came."""

    def __init__(self) -> None:
        self._chunks: collections.deque[tuple[cpb.LogStream.ValueType, bytes]] = collections.deque()
        self._queued_bytes = 0
        self._left_bytes: int | None = None  # None while the command runs
        self._quiet: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._open: set[asyncio.ReadTransport] = set()

    async def read_from(self, fd: int, stream: cpb.LogStream.ValueType) -> None:
        """Takes the descriptor over."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: _Reader(self, stream), os.fdopen(fd, "rb", buffering=0))

    async def chunks(self) -> AsyncGenerator[tuple[cpb.LogStream.ValueType, bytes], None]:
        while self._chunks or self._open:
            if not self._chunks:
                self._changed.clear()
                await self._changed.wait()
                continue
            stream, data = self._chunks.popleft()
            self._queued_bytes -= len(data)
            if self._queued_bytes <= MAX_QUEUED_BYTES // 2:
                for transport in self._open:
                    transport.resume_reading()
            yield stream, data

    def finish(self) -> None:
        """The command has ended."""
        self._left_bytes = LEFT_BYTES
        self._expect_quiet()

    def _expect_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._was_quiet)

    def _was_quiet(self) -> None:
        """Nothing came; unless that is because whoever takes it is slow."""
        if self._queued_bytes > MAX_QUEUED_BYTES // 2:
            self._expect_quiet()
        else:
            self.close()

    def close(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
        for transport in list(self._open):
            transport.close()
        self._open.clear()
        self._changed.set()

    def opened(self, transport: asyncio.ReadTransport) -> None:
        self._open.add(transport)

    def arrived(self, stream: cpb.LogStream.ValueType, data: bytes) -> None:
        self._chunks.append((stream, data))
        self._queued_bytes += len(data)
        self._changed.set()
        if self._queued_bytes > MAX_QUEUED_BYTES:
            for transport in self._open:
                transport.pause_reading()
        if self._left_bytes is not None:
            self._left_bytes -= len(data)
            if self._left_bytes < 0:
                self.close()
            else:
                self._expect_quiet()

    def ended(self, transport: asyncio.ReadTransport) -> None:
        self._open.discard(transport)
        self._changed.set()


class _Reader(asyncio.Protocol):
    def __init__(self, output: _Output, stream: cpb.LogStream.ValueType) -> None:
        self._output = output
        self._stream = stream
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport), transport
        self._transport = transport
        self._output.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._output.arrived(self._stream, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a terminal ends with EIO, a pipe with nothing
        assert self._transport is not None, "lost before it was made"
        self._output.ended(self._transport)


class _Input(asyncio.BaseProtocol):
    """What goes into the command."""

    def __init__(self) -> None:
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def to(cls, fd: int) -> "_Input":
        """Takes the descriptor over."""
        _, protocol = await asyncio.get_running_loop().connect_write_pipe(cls, os.fdopen(fd, "wb", buffering=0))
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport), transport
        self._transport = transport

    async def write(self, data: bytes) -> None:
        """What the command does not want to read any more is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            await self._may_write.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the command closed its input
        self._transport = None
        self._may_write.set()


def _process(wanted: cpb.ExecStart, environment: Sequence[str]) -> dict[str, Any]:
    """The OCI process object; what it leaves out is as in the container."""
    variables = dict(entry.partition("=")[::2] for entry in environment)
    if wanted.tty:
        variables.setdefault("TERM", "xterm")
    variables.update(wanted.env)
    process: dict[str, Any] = {
        "args": list(wanted.command),
        "env": [f"{name}={value}" for name, value in variables.items()],
        "terminal": wanted.tty,
    }
    if wanted.tty and wanted.size.rows and wanted.size.columns:
        process["consoleSize"] = {"height": min(wanted.size.rows, 65535), "width": min(wanted.size.columns, 65535)}
    if wanted.working_dir:
        process["cwd"] = wanted.working_dir
    if wanted.user:
        process["user"] = {"username": wanted.user}
    return process

"""A command that runs elsewhere, with this terminal as its own.

Three rules: the terminal is as it was when this ends, however it ends; input is read only once the command runs, so
that nothing is lost when another server has to be asked; and the exit code is the command's.
"""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from orchctl import client, errors
from protos.orch.v1 import control_pb2 as control

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlAsyncStub

CHUNK_BYTES = 32 << 10
OUTGOING = 16
"""So many messages wait for the network before input is read no further."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
PATIENCE = 2
"""After so many signals of a kind this program ends, whatever the command does."""


def run(server: str, start: control.ExecStart) -> int:
    """The command's exit code."""
    return client.at_leader(server, lambda address: asyncio.run(_Session(address, start).run()))


class _Session:
    def __init__(self, server: str, start: control.ExecStart) -> None:
        self._server = server
        self._start = start
        self._outgoing: asyncio.Queue[control.ExecRequest] = asyncio.Queue(OUTGOING)
        self._signals: dict[int, int] = {}
        self._resized = asyncio.Event()
        self._helpers: list[asyncio.Task[None]] = []
        self._exit_code: int | None = None

    async def run(self) -> int:
        if self._start.tty and (size := _size()):
            self._start.size.CopyFrom(size)
        try:
            with contextlib.ExitStack() as restored:
                async with asyncio.TaskGroup() as group, client.connect_async(self._server) as stub:
                    await self._converse(stub, lambda: self._begin(group, restored))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        if self._exit_code is None:
            raise errors.Unreachable(f"the control plane at {self._server} ended the stream before the command ended")
        return self._exit_code & 0xFF

    async def _converse(self, stub: "ControlAsyncStub", begin: Callable[[], None]) -> None:
        """Writes what the command prints until it ends. Calls `begin` once it runs."""
        async for response in stub.Exec(self._requests()):
            match response.WhichOneof("message"):
                case "started":
                    begin()
                case "stdout":
                    _write(sys.stdout.fileno(), response.stdout)
                case "stderr":
                    _write(sys.stderr.fileno(), response.stderr)
                case "exit_code":
                    self._exit_code = response.exit_code
                case None:
                    pass  # something that this version does not know
        for helper in self._helpers:
            helper.cancel()

    def _begin(self, group: asyncio.TaskGroup, restored: contextlib.ExitStack) -> None:
        """From now on the terminal is the command's."""
        loop = asyncio.get_running_loop()
        if self._start.tty and self._start.stdin:
            restored.enter_context(_raw(sys.stdin.fileno()))
        for number in FORWARDED:
            loop.add_signal_handler(number, self._forward, number)
        if self._start.stdin:
            self._helpers.append(group.create_task(self._read_input()))
        if self._start.tty:
            loop.add_signal_handler(signal.SIGWINCH, self._resized.set)
            self._helpers.append(group.create_task(self._send_sizes()))

    async def _requests(self) -> AsyncIterator[control.ExecRequest]:
        yield control.ExecRequest(start=self._start)
        while True:
            yield await self._outgoing.get()

    async def _read_input(self) -> None:
        descriptor = sys.stdin.fileno()
        while data := await _read(descriptor):
            await self._outgoing.put(control.ExecRequest(stdin=data))
        await self._outgoing.put(control.ExecRequest(stdin_closed=True))

    async def _send_sizes(self) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            if size := _size():
                await self._outgoing.put(control.ExecRequest(resize=size))

    def _forward(self, number: int) -> None:
        """Passes a signal on. Somebody who insists ends this program instead."""
        self._signals[number] = self._signals.get(number, 0) + 1
        if self._signals[number] > PATIENCE or self._outgoing.full():
            raise KeyboardInterrupt
        self._outgoing.put_nowait(control.ExecRequest(signal=number))


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on as it is."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


async def _read(descriptor: int) -> bytes:
    """What there is to read; nothing at the end.

    The descriptor stays as it is: making a terminal non-blocking would do so for the shell behind it, too.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(descriptor, readable.set)
    except PermissionError:
        # Files and /dev/null cannot be waited for; reading them does not wait.
        return os.read(descriptor, CHUNK_BYTES)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    with contextlib.suppress(OSError):  # EIO: the terminal has gone, which is its end
        return os.read(descriptor, CHUNK_BYTES)
    return b""


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _size() -> control.TerminalSize | None:
    """Of the terminal that the command's output goes to; None when there is none."""
    for stream in (sys.stdout, sys.stdin):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(stream.fileno())
            return control.TerminalSize(rows=size.lines, columns=size.columns)
    return None

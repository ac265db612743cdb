"""A command that runs elsewhere, with this terminal as its own.

Three rules: the terminal is as it was when this ends, however it ends; input is read only once the command runs, so
that nothing is lost when another server has to be asked; and the exit code is the command's.

Threads, for once, and gRPC's blocking calls: its asynchronous ones forget the server's last words (the exit code)
when those cross with input on its way there.
"""

import contextlib
import os
import queue
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator

from orchctl import client, errors
from protos.orch.v1 import control_pb2 as control

CHUNK_BYTES = 32 << 10
OUTGOING = 16
"""So many pieces of input wait for the network before no more is read."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
PATIENCE = 2
"""After so many signals of a kind this program ends, whatever the command does."""


def run(server: str, start: control.ExecStart) -> int:
    """The command's exit code."""
    return client.at_leader(server, lambda address: _Session(address, start).run())


class _Session:
    def __init__(self, server: str, start: control.ExecStart) -> None:
        self._server = server
        self._start = start
        # Signal handlers put into it, which may interrupt each other: the bounded queue would lock up.
        self._outgoing: queue.SimpleQueue[control.ExecRequest | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(OUTGOING)
        self._signals: dict[int, int] = {}

    def run(self) -> int:
        if self._start.tty and (size := _size()):
            self._start.size.CopyFrom(size)
        code: int | None = None
        with contextlib.ExitStack() as restored, client.connect(self._server) as stub:
            restored.callback(self._outgoing.put, None)
            for response in stub.Exec(self._requests()):
                match response.WhichOneof("message"):
                    case "started":
                        self._begin(restored)
                    case "stdout":
                        _write(sys.stdout.fileno(), response.stdout)
                    case "stderr":
                        _write(sys.stderr.fileno(), response.stderr)
                    case "exit_code":
                        code = response.exit_code
                    case None:
                        pass  # something that this version does not know
        if code is None:
            raise errors.Unreachable(f"the control plane at {self._server} ended the stream before the command ended")
        return code & 0xFF

    def _begin(self, restored: contextlib.ExitStack) -> None:
        """From now on the terminal is the command's."""
        if self._start.tty and self._start.stdin:
            restored.enter_context(_raw(sys.stdin.fileno()))
        for number in FORWARDED:
            restored.enter_context(_handled(number, lambda number, _frame: self._forward(number)))
        if self._start.tty:
            restored.enter_context(_handled(signal.SIGWINCH, lambda _number, _frame: self._send_size()))
        if self._start.stdin:
            # Nobody waits for it: it may sit in a read that ends with the terminal only.
            threading.Thread(target=self._read_input, daemon=True).start()

    def _requests(self) -> Iterator[control.ExecRequest]:
        """What goes to the server. gRPC asks for one message after the other as the network takes them."""
        yield control.ExecRequest(start=self._start)
        while (request := self._outgoing.get()) is not None:
            yield request
            if request.WhichOneof("message") == "stdin":
                self._room.release()

    def _read_input(self) -> None:
        while data := _read(sys.stdin.fileno()):
            self._room.acquire()
            self._outgoing.put(control.ExecRequest(stdin=data))
        self._outgoing.put(control.ExecRequest(stdin_closed=True))

    def _send_size(self) -> None:
        if size := _size():
            self._outgoing.put(control.ExecRequest(resize=size))

    def _forward(self, number: int) -> None:
        """Passes a signal on. Somebody who insists ends this program instead."""
        self._signals[number] = self._signals.get(number, 0) + 1
        if self._signals[number] > PATIENCE:
            raise KeyboardInterrupt
        self._outgoing.put(control.ExecRequest(signal=number))


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on as it is."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextlib.contextmanager
def _handled(number: int, handler: "signal._HANDLER") -> Iterator[None]:
    """The signal goes to this handler for a while."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _read(descriptor: int) -> bytes:
    """What there is to read; nothing at the end."""
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

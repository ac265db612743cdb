"""Log lines on their way to the terminal, and a follow that survives a control plane that goes away.

Lines of a container are its own affair: a pipe gets every byte of them; a terminal gets them without control
characters, except those that choose colours.
"""

import sys
import time
import zlib
from datetime import UTC, datetime

from orchctl import client, errors, terminal
from protos.orch.v1 import control_pb2 as control

RETRY_S = 1.0


class Writer:
    """Writes lines to standard output. Pieces of one long line are put together again."""

    def __init__(self, *, prefixed: bool, timestamps: bool) -> None:
        self._prefixed = prefixed
        self._timestamps = timestamps
        self._terminal = terminal.is_terminal()
        self._colours = terminal.has_colours()
        self._open_source = ""
        """The container whose line has been written in part."""

    def write(self, line: control.LogLine) -> None:
        source = _source(line)
        if self._open_source and self._open_source != source:
            self._out(b"\n")
        head = b"" if self._open_source == source else self._head(line)
        self._open_source = source if line.partial else ""
        self._out(head + self._text(line.text) + (b"" if line.partial else b"\n"))

    def notice(self, text: str) -> None:
        terminal.note(terminal.one_line(text))

    @staticmethod
    def flush() -> None:
        sys.stdout.flush()

    def _head(self, line: control.LogLine) -> bytes:
        parts = [self._name(_source(line))] if self._prefixed else []
        parts += [moment(line.time_ns)] if self._timestamps else []
        return "".join(f"{part} " for part in parts).encode()

    def _name(self, source: str) -> str:
        """Where the line comes from, in a colour that only depends on it."""
        name = f"{terminal.one_line(source)} |"
        return terminal.coloured(name, zlib.crc32(source.encode())) if self._colours else name

    def _text(self, text: bytes) -> bytes:
        if not self._terminal:
            return text
        return terminal.clean_keeping_colours(text.decode(errors="backslashreplace")).encode()

    @staticmethod
    def _out(data: bytes) -> None:
        sys.stdout.buffer.write(data)


def _source(line: control.LogLine) -> str:
    """`web-1-k7x2m9q4`, and `web-1-k7x2m9q4/proxy` when the containers are told apart."""
    return f"{line.task}/{line.container}" if line.container else line.task


def moment(time_ns: int) -> str:
    """`2026-01-31T12:00:00.123456789Z`."""
    seconds, rest_ns = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09}Z"


def show(server: str, request: control.LogsRequest, writer: Writer) -> None:
    """Writes what the request asks for. With `follow`, until it is interrupted or every task has ended."""
    seen = Seen()
    while True:
        try:
            client.at_leader(server, lambda address: _stream(address, seen.resumed(request), writer, seen))
        except errors.Unreachable as error:
            if not (request.follow and seen.begun):
                raise
            writer.notice(f"{error.message}; trying again")
            time.sleep(RETRY_S)
        else:
            return


def _stream(server: str, request: control.LogsRequest, writer: Writer, seen: "Seen") -> None:
    with client.connect(server) as stub:
        for response in stub.Logs(request):
            seen.begun = True
            for line in response.lines:
                if seen.is_new(line):
                    writer.write(line)
            if response.notice:
                writer.notice(response.notice)
            writer.flush()


class Seen:
    """How far each container's lines were written, so that a new stream goes on where the old one broke."""

    def __init__(self) -> None:
        self.begun = False
        self._last_ns: dict[str, int] = {}
        self._resumed_ns: dict[str, int] = {}

    def resumed(self, request: control.LogsRequest) -> control.LogsRequest:
        """The request for what was not seen yet."""
        if not self._last_ns:
            return request
        again = control.LogsRequest()
        again.CopyFrom(request)
        again.tail = -1
        self._resumed_ns = dict(self._last_ns)
        # The earliest of the tasks' ends: no line of any of them is lost, and `is_new` drops those that come again.
        again.since = max(request.since, min(self._last_ns.values(), default=0) // 1_000_000)
        return again

    def is_new(self, line: control.LogLine) -> bool:
        """Whether the line was not there before the stream broke."""
        source = _source(line)
        self._last_ns[source] = max(self._last_ns.get(source, 0), line.time_ns)
        return line.time_ns > self._resumed_ns.get(source, 0)

"""The container's output on its way from pipes or terminal to the log and to attached clients.

Nothing is gathered: a chunk that was read is written before the next is read. The log never waits for a client: an
attached socket that is full is closed, and its reader finds the rest in the log.
"""

import errno
import os
import socket
import time
from typing import Final

from runtime import logs

STDOUT, STDERR = 0, 1
_READ_BYTES: Final = 64 * 1024
_DRAIN_S: Final = 2.0


class Output:
    """The open ends that we read, and where their content goes. A terminal has one end, which counts as stdout."""

    def __init__(self, ends: tuple[int, ...], log: logs.LogFile | None) -> None:
        self._streams = {fd: stream for stream, fd in enumerate(ends)}
        self._log = log
        self._splitters = (logs.LineSplitter("stdout"), logs.LineSplitter("stderr"))
        self._sinks: tuple[list[socket.socket], list[socket.socket]] = ([], [])
        for fd in ends:
            os.set_blocking(fd, False)

    @property
    def ends(self) -> tuple[int, ...]:
        """The descriptors that are still open."""
        return tuple(self._streams)

    def move(self, fd: int) -> bool:
        """Move one chunk. False when there is none now, or when the end was reached and closed."""
        try:
            chunk = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:  # a terminal says so when its last user has closed it
            if error.errno != errno.EIO:
                raise
            chunk = b""
        stream = self._streams[fd]
        if not chunk:
            del self._streams[fd]
            os.close(fd)
            return False
        self._write(self._splitters[stream].records(chunk, time.time_ns()))
        for sink in list(self._sinks[stream]):
            self._feed(stream, sink, chunk)
        return True

    def finish(self) -> int:
        """Take what is still there, end the log; the bytes that the log has lost.

        Somebody outside the container who holds a pipe open and goes on writing has two seconds.
        """
        until = time.monotonic() + _DRAIN_S
        for fd in self.ends:
            while self.move(fd) and time.monotonic() < until:
                pass
        if self._log is None:
            return 0
        for splitter in self._splitters:
            self._write(splitter.finish(time.time_ns()))
        self._log.close()
        return self._log.lost_bytes_total

    def attach(self, stream: int, sink: socket.socket) -> None:
        """Copy a stream to a socket from now on; the socket is ours."""
        self._sinks[stream].append(sink)

    def _feed(self, stream: int, sink: socket.socket, chunk: bytes) -> None:
        try:
            complete = sink.send(chunk, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) == len(chunk)
        except OSError:
            complete = False
        if not complete:
            self._sinks[stream].remove(sink)
            sink.close()

    def _write(self, records: bytes) -> None:
        if self._log is not None and records:
            self._log.write(records)

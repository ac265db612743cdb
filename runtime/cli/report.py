"""What the command tells: errors on the standard error stream, and in the log that a caller asked for.

The log's lines are what containerd and podman read: {"level", "msg", "time"}, one object a line.
"""

import json
import os
import sys
import time
from typing import Final

from runtime import errors

_HINTS: Final = (
    # podman and Docker look for these words, and give 127 and 126 when they find them.
    (errors.ProgramNotFound, "executable file not found in $PATH: no such file or directory"),
    (errors.ProgramNotExecutable, "permission denied"),
)


class Report:
    """Where to tell; one for each run of the command."""

    def __init__(self, path: str = "", style: str = "text", *, debug: bool = False) -> None:
        self._path = path.removeprefix("file:")
        self._style = style
        self._debug = debug

    def error(self, error: errors.ContainerError) -> None:
        """Tell why the verb failed."""
        text = " ".join(message(error).split())
        self._log("error", text)
        sys.stderr.write(f"orchrun: {text}\n")

    def debug(self, text: str) -> None:
        """Tell what is being done, when --debug asks for it."""
        if self._debug:
            self._log("debug", text)
            if not self._path:
                sys.stderr.write(f"orchrun: debug: {text}\n")

    def _log(self, level: str, text: str) -> None:
        if not self._path:
            return
        line = _json_line(level, text) if self._style == "json" else _text_line(level, text)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as failure:
            sys.stderr.write(f"orchrun: --log {self._path}: {failure.strerror}\n")
            return
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def message(error: errors.ContainerError) -> str:
    """The error's words, with those that clients look for."""
    for kind, hint in _HINTS:
        if isinstance(error, kind) and hint.rpartition(": ")[2] not in error.message.lower():
            return f"{error.message}: {hint}"
    return error.message


def _json_line(level: str, text: str) -> str:
    return json.dumps({"level": level, "msg": text, "time": timestamp(time.time_ns())}) + "\n"


def _text_line(level: str, text: str) -> str:
    return f'time="{timestamp(time.time_ns())}" level={level} msg={json.dumps(text)}\n'


def timestamp(at_ns: int) -> str:
    """RFC 3339, in UTC, with nanoseconds: 2024-05-01T10:00:00.000000001Z."""
    seconds, rest = divmod(at_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"

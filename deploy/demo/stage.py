"""Typing commands where everybody can see it, and waiting for what they should bring about."""

import os
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_PAUSE_S: Final = 0.05
_COMMAND_TIMEOUT_S: Final = 60.0


class NotSeen(Exception):  # noqa: N818 - it says what happened
    """A step's claim did not come true."""


class Stage:
    """`folder` may be written to; `ORCH_CONFIG` points into it, so that the person's own contexts stay as they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        scripts = str(Path(sys.executable).parent)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "PATH": f"{scripts}:{os.environ.get('PATH', os.defpath)}",
            "ORCH_CONFIG": str(folder / "config.yaml"),
        }
        self._colours = sys.stdout.isatty()
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        print(f"\n{self._paint('1', text)}", flush=True)

    def seen(self, what: str) -> None:
        """A claim that has come true."""
        print(f"  {self._paint('32', '✓')} {what}", flush=True)

    def type(self, *command: str, expect: int = 0, note: str = "") -> str:
        """Run a command, show it and its output, and return that. NotSeen when it ends otherwise than expected."""
        self.show(*command, note=note)
        child = self._start(command)
        output = _read_to_end(child, time.monotonic() + _COMMAND_TIMEOUT_S, echo=self._echo)
        if child.returncode != expect:
            raise NotSeen(f"{shlex.join(command)} ended with exit code {child.returncode}, not {expect}")
        return output

    def show(self, *command: str, note: str = "") -> None:
        comment = f"   # {note}" if note else ""
        print(f"  {self._paint('36', '$ ' + shlex.join(command))}{comment}", flush=True)

    def follow(self, *command: str) -> "Following":
        """Show a command that goes on until it is interrupted, and start it."""
        self.show(*command)
        return Following(self._start(command), self._echo)

    def _start(self, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=ROOT,
        )

    def _echo(self, line: str) -> None:
        print(f"    {line}", flush=True)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text


class Following:
    """A command that runs beside the tour."""

    def __init__(self, child: subprocess.Popen[bytes], echo: Callable[[str], None]) -> None:
        self._child = child
        self._echo = echo
        self._lines: list[str] = []

    def wait_for(self, what: str, holds: Callable[[str], bool], *, timeout_s: float) -> None:
        """Until its output so far is such that `holds`. NotSeen when that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not holds("\n".join(self._lines)):
            line = _read_line(self._child, deadline)
            if line is None:
                raise NotSeen(f"not within {timeout_s:.0f} s: {what}")
            self._lines.append(line)
            self._echo(line)

    def end(self) -> None:
        """Ctrl-C."""
        assert self._child.stdout is not None
        self._child.send_signal(2)
        _read_to_end(self._child, time.monotonic() + 5, echo=self._echo)


def _read_to_end(child: subprocess.Popen[bytes], deadline: float, *, echo: Callable[[str], None]) -> str:
    lines = []
    try:
        while (line := _read_line(child, deadline)) is not None:
            lines.append(line)
            echo(line)
        child.wait(timeout=max(deadline - time.monotonic(), 1))
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        assert child.stdout is not None
        child.stdout.close()
    return "\n".join(lines)


def _read_line(child: subprocess.Popen[bytes], deadline: float) -> str | None:
    """The next line; None at the end of the output or when the time is up."""
    assert child.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([child.stdout], [], [], max(deadline - time.monotonic(), 0))
        # One byte at a time from the descriptor itself: what a buffer holds, select does not see.
        byte = os.read(child.stdout.fileno(), 1) if readable else b""
        if not byte:
            break
        line += byte
    return line.decode(errors="replace").rstrip("\n") if line else None


def wait_for(what: str, look: Callable[[], T | None], *, timeout_s: float) -> T:
    """What `look` returns as soon as that is not None. NotSeen when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise NotSeen(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(_PAUSE_S)

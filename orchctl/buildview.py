"""How a build is shown: steps in place in a terminal, one line after the other elsewhere. On standard error.

It is `images.build.watching.Watcher`. What commands write comes from elsewhere, and goes through `terminal.clean`. In a
terminal the last lines of each running step stand below it, and go when it ends well; the error at the end has them.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchctl import terminal

if TYPE_CHECKING:
    from images.build.watching import Step, Watcher

LAST_LINES = 4
_MAX_LINE = 4096


@contextmanager
def shown(*, quiet: bool) -> "Iterator[Watcher]":
    """Shows a build while the block runs; `quiet` shows its warnings only."""
    live = sys.stderr.isatty() and terminal.is_terminal() and not quiet
    view = Block() if live else Lines(quiet=quiet)
    try:
        yield view
    finally:
        view.close()


def title(step: "Step") -> str:
    """`[build 3/9] RUN make`."""
    return terminal.one_line(f"[{step.stage} {step.label}/{step.total}] {step.text}")


class Lines:
    """For pipes and files: every line as it comes, marked with its step, since stages are built side by side."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._guard = threading.Lock()
        self._rest: dict[str, bytes] = {}

    def begun(self, step: "Step") -> None:
        self._say(title(step))

    def wrote(self, step: "Step", data: bytes) -> None:
        *lines, rest = (self._rest.get(step.label, b"") + data).split(b"\n")
        if len(rest) > _MAX_LINE:
            lines, rest = [*lines, rest], b""
        self._rest[step.label] = rest
        for line in lines:
            self._say(f"#{step.label} {_text(line)}")

    def ended(self, step: "Step", *, cached: bool, seconds: float) -> None:
        rest = self._rest.pop(step.label, b"")
        if rest:
            self._say(f"#{step.label} {_text(rest)}")
        if step.makes_files:
            self._say(f"#{step.label} {outcome(step, cached=cached, seconds=seconds)}")

    def warned(self, text: str) -> None:
        with self._guard:
            terminal.note(f"warning: {text}")

    def close(self) -> None:
        """What has no end of line yet; a step that failed has not said that it ended."""
        for label, rest in self._rest.items():
            if rest:
                self._say(f"#{label} {_text(rest)}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            with self._guard:
                terminal.note(text)


class Block:
    """For a terminal: what is done scrolls up, what runs is drawn over and over."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[str, tuple[Step, float, deque[str]]] = {}
        self._rest: dict[str, bytes] = {}
        self._height = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="build view", daemon=True)
        self._thread.start()

    def begun(self, step: "Step") -> None:
        with self._guard:
            self._running[step.label] = (step, time.monotonic(), deque(maxlen=LAST_LINES))

    def wrote(self, step: "Step", data: bytes) -> None:
        with self._guard:
            *lines, rest = (self._rest.get(step.label, b"") + data).split(b"\n")
            self._rest[step.label] = rest[-_MAX_LINE:]
            self._running[step.label][2].extend(_text(line) for line in lines)

    def ended(self, step: "Step", *, cached: bool, seconds: float) -> None:
        with self._guard:
            self._running.pop(step.label, None)
            self._rest.pop(step.label, None)
            self._draw([f"{title(step)} {outcome(step, cached=cached, seconds=seconds)}".rstrip()])

    def warned(self, text: str) -> None:
        with self._guard:
            self._draw([f"warning: {terminal.one_line(text)}"])

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        with self._guard:
            self._draw([f"{title(step)} not done" for step, _, _ in self._running.values()], last=True)

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            with self._guard:
                self._draw([])

    def _draw(self, done: list[str], *, last: bool = False) -> None:
        """Write lines that stay, and below them what runs. Called with the guard held."""
        size = terminal.size()
        below = [] if last else self._below(size.columns - 1)[: max(size.lines - 2, 1)]
        back = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        kept = "".join(f"{terminal.cut(line, size.columns - 1)}\n" for line in done)
        sys.stderr.write(back + kept + "".join(f"{line}\n" for line in below))
        sys.stderr.flush()
        self._height = len(below)

    def _below(self, width: int) -> list[str]:
        lines: list[str] = []
        for step, began, output in self._running.values():
            lines.append(terminal.cut(f"{title(step)} {time.monotonic() - began:.1f} s", width))
            lines += (terminal.cut(f"    {line}", width) for line in output)
        return lines


def outcome(step: "Step", *, cached: bool, seconds: float) -> str:
    """How a step ended; nothing of one that only writes something down."""
    if not step.makes_files:
        return ""
    return "CACHED" if cached else f"done in {seconds:.1f} s"


def _text(line: bytes) -> str:
    """A line that a command wrote: of one that was written over and over, the last state."""
    return terminal.one_line_keeping_indent(
        terminal.clean(line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace"))
    )

"""How far work on layers is: a line with a bar for each in a terminal, plain lines elsewhere. On standard error.

It is `images.progress.Progress`, so whatever pulls, pushes, builds, saves or unpacks may be given one. Two rules. Who
tells it something never waits for a terminal: a thread of its own draws what is known by then. And a layer that is done
moves above those that are not, so that what goes on stays in sight however many there are.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchctl import terminal

REDRAW_S = 0.1
BAR_SIGNS = 24
FINAL = frozenset({"done", "exists", "failed", "mounted"})
"""Words after which nothing more is expected of a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where one layer is. A total of None is not known."""

    title: str
    doing: str
    done_bytes: int
    total_bytes: int | None

    @property
    def is_final(self) -> bool:
        return self.doing in FINAL


class Bars:
    """Keeps the last word on each layer, and draws. Use `shown`, which also ends it."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._stands: dict[str, Stand] = {}
        self._news: list[Stand] = []
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._height = 0
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def step(self, digest: str, doing: str, done_bytes: int, total_bytes: int | None) -> None:
        """Takes a word from any thread."""
        stand = Stand(title=_title(digest), doing=doing, done_bytes=done_bytes, total_bytes=total_bytes)
        with self._guard:
            before = self._stands.get(digest)
            self._stands[digest] = stand
            if before is None or before.doing != doing:
                self._news.append(stand)

    def stands(self) -> Sequence[Stand]:
        """The last word on each layer."""
        with self._guard:
            return list(self._stands.values())

    def close(self) -> None:
        """Draws for the last time."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(REDRAW_S):
            self._show()
        self._show(last=True)

    def _show(self, *, last: bool = False) -> None:
        with self._guard:
            stands, news = list(self._stands.values()), self._news
            self._news = []
        with contextlib.suppress(OSError):  # nobody looks any more; the work itself goes on
            if self._live:
                self._draw(stands, last=last)
            else:
                sys.stderr.write("".join(f"{terminal.one_line(plain(stand))}\n" for stand in news))
            sys.stderr.flush()

    def _draw(self, stands: Sequence[Stand], *, last: bool) -> None:
        size = terminal.size()
        lines = frame(stands, width=size.columns - 1, height=10_000 if last else size.lines - 2)
        back = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        if lines or back:
            sys.stderr.write(back + "".join(f"{line}\n" for line in lines))
        self._height = len(lines)


@contextlib.contextmanager
def shown() -> Iterator[Bars]:
    """Progress as long as the block runs; all of it is on the screen before anything else is said."""
    bars = Bars(live=sys.stderr.isatty() and terminal.is_terminal())
    try:
        yield bars
    finally:
        bars.close()


def plain(stand: Stand) -> str:
    """`4f53cda18c2b: downloading 12Mi`: the size only where something is about to move."""
    size = "" if stand.is_final or not stand.total_bytes else f" {amount(stand.total_bytes)}"
    return f"{stand.title}: {stand.doing}{size}"


def frame(stands: Sequence[Stand], *, width: int, height: int) -> list[str]:
    """The lines of a drawing, none wider than `width`; where there are too many, those that are done make room."""
    ordered = sorted(stands, key=lambda stand: not stand.is_final)
    hidden = max(len(ordered) - height, 0)
    if hidden:
        hidden += 1  # its own line
    titles = max((terminal.columns(stand.title) for stand in ordered), default=0)
    words = max((len(stand.doing) for stand in ordered), default=0)
    lines = [_line(stand, titles, words) for stand in ordered[hidden:]]
    above = [_hidden(ordered[:hidden])] if hidden else []
    return [terminal.cut(terminal.one_line_keeping_indent(line), width) for line in (*above, *lines)]


def amount(size_bytes: int) -> str:
    """`12.3Mi`: with one decimal, so that one sees it move."""
    value = float(size_bytes)
    for unit in ("", "Ki", "Mi"):
        if value < 1024:
            return f"{value:.1f}{unit}" if unit else f"{size_bytes}"
        value /= 1024
    return f"{value:.2f}Gi"


def _hidden(stands: Sequence[Stand]) -> str:
    done = sum(stand.is_final for stand in stands)
    waiting = len(stands) - done
    parts = [f"{done} done"] if done else []
    return f"… {', '.join([*parts, *([f'{waiting} more'] if waiting else [])])}"


def _line(stand: Stand, titles: int, words: int) -> str:
    start = f"{stand.title.ljust(titles)}  {stand.doing.ljust(words)}"
    if stand.is_final:
        return start.rstrip()
    if stand.total_bytes is None:
        return f"{start}  {amount(stand.done_bytes)}" if stand.done_bytes else start.rstrip()
    return f"{start}  {_bar(stand.done_bytes, stand.total_bytes)}  {_of(stand.done_bytes, stand.total_bytes)}"


def _of(done_bytes: int, total_bytes: int) -> str:
    return f"{amount(done_bytes).rjust(8)} / {amount(total_bytes)}"


def _bar(done_bytes: int, total_bytes: int) -> str:
    full = BAR_SIGNS if done_bytes >= total_bytes else BAR_SIGNS * done_bytes // total_bytes
    return "█" * full + "░" * (BAR_SIGNS - full)


def _title(digest: str) -> str:
    """A digest's first twelve figures; any other word as it is."""
    kind, colon, figures = digest.partition(":")
    return figures[:12] if colon and kind == "sha256" else digest

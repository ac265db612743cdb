"""Live progress: a block that is drawn over and over in a terminal, plain lines elsewhere.

A pipe gets a line when a service's words change, at most one a second, and always the last one.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from orchctl import terminal
from orchctl.progress import Phase, Progress, Target

BAR_SIGNS = 20
PLAIN_INTERVAL_S = 1.0
_MARKS = {Phase.DONE: "✓", Phase.WAITING: "…", Phase.IMPOSSIBLE: "✗"}


class Screen(Protocol):
    """Shows how far each target is. `elapsed_s` counts from the start of the wait."""

    def show(self, stands: Mapping[Target, Progress], elapsed_s: float, *, last: bool = False) -> None:
        """Draws. `last` comes once, at the end."""

    def tell(self, text: str) -> None:
        """Says something once."""


def choose() -> Screen:
    """The screen that fits the output."""
    return Block() if terminal.is_terminal() else Lines()


class Block:
    """Redraws its lines in place. No taller and no wider than the terminal, so that going up n lines is exact."""

    def __init__(self) -> None:
        self._height = 0

    def show(self, stands: Mapping[Target, Progress], elapsed_s: float, *, last: bool = False) -> None:
        size = terminal.size()
        lines = block(stands, elapsed_s, width=size.columns - 1, height=10_000 if last else size.lines - 2)
        self._draw(lines)
        self._height = 0 if last else len(lines)

    def tell(self, text: str) -> None:
        self._draw([])
        self._height = 0
        terminal.note(text)

    def _draw(self, lines: Sequence[str]) -> None:
        back = f"\x1b[{self._height}F\x1b[J" if self._height else ""
        sys.stdout.write(back + "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


class Lines:
    """Prints what has changed."""

    def __init__(self) -> None:
        self._shown: dict[Target, str] = {}
        self._shown_at_s = -PLAIN_INTERVAL_S

    def show(self, stands: Mapping[Target, Progress], elapsed_s: float, *, last: bool = False) -> None:
        if elapsed_s - self._shown_at_s < PLAIN_INTERVAL_S and not last:
            return
        for target, stand in stands.items():
            line = f"{target.label}: {plain(stand)}"
            if self._shown.get(target) != line:
                self._shown[target] = line
                self._shown_at_s = elapsed_s
                terminal.say(terminal.one_line(line))
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        terminal.note(text)


def plain(stand: Progress) -> str:
    """One line: the summary, and the first trouble."""
    return f"{stand.summary} ({stand.troubles[0]})" if stand.troubles else stand.summary


def block(stands: Mapping[Target, Progress], elapsed_s: float, *, width: int, height: int) -> list[str]:
    """The block's lines: one a service, and below it what is in its way."""
    names = max((terminal.columns(target.label) for target in stands), default=0)
    lines = []
    for target, stand in sorted(stands.items(), key=lambda item: item[1].phase is Phase.DONE):
        time = "" if stand.phase is Phase.DONE else f"  {elapsed_s:.0f} s"
        label = target.label + " " * (names - terminal.columns(target.label))
        lines.append(f"{_MARKS[stand.phase]} {label}  {bar(stand.ready, stand.asked)}  {stand.summary}{time}")
        lines += [f"    {trouble}" for trouble in stand.troubles]
    shown = [terminal.cut(terminal.one_line_keeping_indent(line), width) for line in lines]
    return shown if len(shown) <= height else [*shown[: max(height - 1, 1)], f"… and {len(shown) - height + 1} more"]


def bar(ready: int, asked: int) -> str:
    """`█████░░░░░` for 1 of 2."""
    full = BAR_SIGNS if ready >= asked else BAR_SIGNS * ready // asked
    return "█" * full + "░" * (BAR_SIGNS - full)

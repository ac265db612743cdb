"""A program's log on standard error: lines of JSON for programs that gather them, plain words in a terminal.

Two rules. No warning stands there twice in a row for the same trouble. And under systemd each line says how grave it
is, as sd-daemon(3) has it, so that `journalctl -p warning` finds what matters.
"""

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from protos.lossy import lossy
from telemetry.formats import Format

REPEAT_AFTER_S = 30.0
MAX_REMEMBERED = 256

JOURNAL: Final = "JOURNAL_STREAM"
"""What systemd sets for whoever writes into its journal: device and inode of the stream (systemd.exec(5))."""
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def configure(level: str, form: Format = "auto", **always: str) -> None:
    """Logs from here on. `always`: what every line of JSON has besides, such as the node's name."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            Unrepeated(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_rendering(is_json(form, terminal=sys.stderr.isatty()), always),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=lossy(sys.stderr)),
        cache_logger_on_first_use=True,  # else a word that is not even written costs as much as its logger
    )


def is_json(form: Format, *, terminal: bool) -> bool:
    """What `auto` means here."""
    return form == "json" or (form == "auto" and not terminal)


def _rendering(json: bool, always: Mapping[str, str]) -> list[Processor]:
    """The last steps of a line. In the journal, JSON has its priority before it; systemd takes it off again."""
    if not json:
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    render = structlog.processors.JSONRenderer(sort_keys=False, default=str, ensure_ascii=False)
    last: list[Processor] = [_Prioritised(render)] if in_journal(sys.stderr.fileno(), os.environ) else [render]
    return [structlog.processors.format_exc_info, _Complete(always), *last]


def in_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Whether this very descriptor leads into the journal: a child may have another one, and the variable."""
    stat = os.fstat(descriptor)
    return environment.get(JOURNAL, "") == f"{stat.st_dev}:{stat.st_ino}"


class _Complete:
    """The order in which people look for things: when, how grave, what; then who, and everything else."""

    def __init__(self, always: Mapping[str, str]) -> None:
        self._always = always

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
        return {**first, **self._always, **event}


class _Prioritised:
    """`<4>` and the line."""

    def __init__(self, render: structlog.processors.JSONRenderer) -> None:
        self._render = render

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        priority = _PRIORITIES.get(str(event.get("level")), _PRIORITIES["info"])
        return f"<{priority}>{self._render(logger, method, event)!s}"


class Unrepeated:
    """Drops a warning that was logged word for word less than `REPEAT_AFTER_S` ago.

    What tries again several times a second while the store is away would else fill the disk with one sentence.
    """

    def __init__(self) -> None:
        self._logged: OrderedDict[str, float] = OrderedDict()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """As structlog calls its processors."""
        del logger
        if method != "warning":
            return event
        words = f"{event.get('event')} {_about(event)}"
        now = time.monotonic()
        if now - self._logged.get(words, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            raise structlog.DropEvent
        self._logged[words] = now
        self._logged.move_to_end(words)
        if len(self._logged) > MAX_REMEMBERED:
            self._logged.popitem(last=False)
        return event


def _about(event: EventDict) -> str:
    """Why, and to whom: two tasks with the same trouble are two warnings."""
    about = [event.get("reason") or event.get("why") or event.get("error"), *map(event.get, ("task", "container"))]
    return " ".join(str(one) for one in about if one is not None)

"""The program's log: one line an event to standard error, and no line twice in a row for the same trouble."""

import sys
import time
from collections import OrderedDict

import structlog
from structlog.typing import EventDict, WrappedLogger

from protos.lossy import lossy

REPEAT_AFTER_S = 30.0
MAX_REMEMBERED = 256


def configure(level: str) -> None:
    """Whoever starts the process decides where standard error goes."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            Unrepeated(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=lossy(sys.stderr)),
    )


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
        words = f"{event.get('event')} {event.get('reason') or event.get('why')}"
        now = time.monotonic()
        if now - self._logged.get(words, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            raise structlog.DropEvent
        self._logged[words] = now
        self._logged.move_to_end(words)
        if len(self._logged) > MAX_REMEMBERED:
            self._logged.popitem(last=False)
        return event

"""Logs without what makes them colourful, for programs that run for months.

structlog imports `rich`, which imports `attrs`, where these are installed, to colour the tracebacks of a terminal: an
eighth of an agent's start and 4 MB of its memory. The command line, which has them for its progress bars, keeps them.
"""

import sys

_COLOURS = "rich"


def load() -> None:
    """Imports structlog; to be called before anything else does. Once it is there, `rich` can be imported as ever."""
    if _COLOURS in sys.modules:
        return
    sys.modules[_COLOURS] = None  # type: ignore[assignment]  # makes an import fail: so it is documented
    try:
        import structlog  # noqa: F401 - so that it is there
    finally:
        del sys.modules[_COLOURS]

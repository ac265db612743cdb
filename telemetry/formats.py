"""How a log may be written, for command lines: this much is known without loading what writes it."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

Format = Literal["auto", "json", "console"]
FORMATS: Final[Sequence[str]] = get_args(Format)
HELP: Final = (
    "a line of JSON an event, or words for people; auto: words in a terminal, else JSON (default: %(default)s)"
)

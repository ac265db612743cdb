"""The one door to the terminal.

Two rules: text that came from elsewhere (a server, a manifest, a container) reaches a terminal only after `clean`, so
that nobody can move the cursor, retitle the window or hide words; and what a program might read goes to standard
output, what only a person should know to standard error.
"""

import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Mapping

# C0 without tab and line feed, DEL, C1, and the signs that separate lines or turn the direction of writing around.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLOUR = re.compile(r"(\x1b\[[0-9;:]{0,32}m)")
RESET = "\x1b[0m"
RED, GREEN, CYAN = 31, 32, 36
_PALETTE = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


def clean(text: str) -> str:
    """The text with every control character made visible, such as `\\x1b`. Tabs and line feeds stay."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def clean_keeping_colours(text: str) -> str:
    """As `clean`, but sequences that only change colours stay. Ends without a colour."""
    parts = _COLOUR.split(text)
    if len(parts) == 1:
        return clean(text)
    return "".join(part if index % 2 else clean(part) for index, part in enumerate(parts)) + RESET


def one_line(text: str) -> str:
    """Cleaned, and on one line: for cells and messages."""
    return clean(" ".join(text.split()))


def one_line_keeping_indent(text: str) -> str:
    """As `one_line`, for a line that we have laid out with spaces."""
    return clean(text.replace("\n", " ").replace("\t", " "))


def say(text: str = "") -> None:
    """A line (or several) of output."""
    sys.stdout.write(clean(text) + "\n")


def say_in(colour: int, text: str) -> None:
    """A line of output in a colour, where there are colours."""
    sys.stdout.write(f"\x1b[{colour}m{clean(text)}{RESET}\n" if has_colours() else clean(text) + "\n")


def data(text: str) -> None:
    """Output for programs: a pipe gets exactly this text, a terminal gets it cleaned."""
    if is_terminal():
        say(text)
    else:
        sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line for the person, which a pipe does not carry."""
    sys.stdout.flush()
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def is_terminal() -> bool:
    """Whether a person sees the output as it comes."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"


def has_colours() -> bool:
    """Whether to use colours: https://no-color.org."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def coloured(text: str, number: int) -> str:
    """The text in one of ten colours, chosen by number."""
    return f"\x1b[{_PALETTE[number % len(_PALETTE)]}m{text}{RESET}"


def size(environ: Mapping[str, str] = os.environ) -> os.terminal_size:
    """Columns and rows of the terminal; generous where there is none."""
    fallback = (int(environ["COLUMNS"]), 50) if environ.get("COLUMNS", "").isdigit() else (120, 50)
    return shutil.get_terminal_size(fallback)


def columns(text: str) -> int:
    """How many columns a terminal needs for the text: wide signs take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in {"W", "F"} else 1
        for sign in text
    )


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with `…` where something is missing."""
    if columns(text) <= width:
        return text
    used, kept = 1, []
    for sign in text:
        used += columns(sign)
        if used > width:
            break
        kept.append(sign)
    return "".join(kept) + "…"


def now_ms() -> int:
    """The wall clock. Everything below this door gets the time as an argument."""
    return time.time_ns() // 1_000_000

"""Mistakes of a Dockerfile as one sentence: where, in which instruction, what, and what would be right.

One form for all: `Dockerfile:3: COPY: unknown flag --form; did you mean --from?`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from images import errors
from images.build import instructions

_SHOWN = 80


def at(place: instructions.Place, message: str) -> errors.InvalidDockerfile:
    """The error for a place; the instruction is named by the first word of its text."""
    keyword = place.text.split(maxsplit=1)[0].upper() if place.text.strip() else ""
    return errors.InvalidDockerfile(f"{place}: {shown(keyword)}: {message}" if keyword else f"{place}: {message}")


def near(word: str, known: Iterable[str]) -> str:
    """`did you mean RUN?`, or the list of what there is."""
    names = sorted(known)
    found = close(word, names)
    return f"did you mean {found}?" if found else f"there are {', '.join(names)}"


def close(word: str, known: Iterable[str]) -> str:
    """The known word that was meant perhaps, or ""."""
    return next(iter(difflib.get_close_matches(word[:_SHOWN], sorted(known), n=1, cutoff=0.6)), "")


def shown(text: str) -> str:
    """What was written, cut where it gets too long for a message, without characters that steer a terminal."""
    printable = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[: _SHOWN + 1]
    )
    return printable if len(text) <= _SHOWN else f"{printable[:_SHOWN]}…"

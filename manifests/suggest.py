"""What somebody probably meant."""

import difflib
from collections.abc import Iterable

MAX_LENGTH = 64
"""Longer words are not compared: nobody mistypes one, and comparing costs the product of the lengths."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "image"?` for `imagee`; empty when nothing is near."""
    meant = nearest(word, known)
    return f'did you mean "{meant}"?' if meant else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is the same but for case and punctuation, else the one most like it; empty when none is."""
    if len(word) > MAX_LENGTH:
        return ""
    by_form = {_bare(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(_bare(word), by_form, n=1, cutoff=0.6)
    return by_form[close[0]] if close else ""


def same(word: str, other: str) -> bool:
    """Whether two words differ in case and punctuation only: `stop_grace_period` and `stopGracePeriod`."""
    return _bare(word) == _bare(other)


def one_of(words: Iterable[str]) -> str:
    """`"tcp" or "udp"`."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _bare(word: str) -> str:
    """Case, `-`, `_` and spaces are what people get wrong most, so they do not count."""
    return word.lower().replace("_", "").replace("-", "").replace(" ", "")

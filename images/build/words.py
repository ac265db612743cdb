"""The ways in which an instruction's text falls into pieces: flags, words, JSON arrays, `name=value` pairs.

Quotes stay on the words: they are taken away when variables are replaced, since `'$v'` and `"$v"` differ then. Flags
are the exception, as in Docker: a variable in a flag is replaced whatever the quotes around it were.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from images.build import instructions, mistakes

MAX_FLAG = 16 * 1024
MAX_FLAGS = 256
_BLANKS = re.compile(r"[ \t\v\f\r]+")
_FIRST = re.compile(r"(\S+)\s*(.*)", re.DOTALL)
_UNREADABLE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """`--name=value`; `value` is None for a bare `--name`."""

    name: str
    value: str | None


@cache
def _word(escape: str) -> re.Pattern[str]:
    """A word with its quotes; quoted text that is never closed reaches to the end, and is told later."""
    e = re.escape(escape)
    return re.compile(
        rf"""(?: {e}. | '[^']*(?:'|$) | "(?: [^"{e}] | {e}. )*(?:"|{e}?$) | [^\s'"{e}] | {e}$ )+""",
        re.VERBOSE | re.DOTALL,
    )


def split(text: str, *, escape: str) -> tuple[str, ...]:
    """Words between spaces, where quotes and escapes hold a word together."""
    return tuple(_word(escape).findall(text))


def listed(text: str) -> tuple[str, ...]:
    """Words between blanks, whatever quotes there are; the spaces of other scripts are letters of a name."""
    return tuple(word for word in _BLANKS.split(text) if word)


def flags(text: str, *, escape: str) -> tuple[tuple[Flag, ...], str]:
    """The flags that a text begins with, and what follows them; a bare `--` ends them. Raises ValueError."""
    found: list[Flag] = []
    position = 0
    while text.startswith("--", position):
        match = _word(escape).match(text, position)
        assert match is not None, "two dashes are a word"
        position = match.end()
        while position < len(text) and text[position].isspace():
            position += 1
        if match[0] == "--":
            break
        if len(match[0]) > MAX_FLAG or len(found) == MAX_FLAGS:
            raise ValueError(f"more than {MAX_FLAGS} flags, or one of more than {MAX_FLAG} characters; use less")
        found.append(_flag(_bare(match[0], escape)))
    return tuple(found), text[position:]


def _flag(word: str) -> Flag:
    name, equals, value = word.removeprefix("--").partition("=")
    return Flag(name=name, value=value if equals else None)


@cache
def _quoting(escape: str) -> re.Pattern[str]:
    e = re.escape(escape)
    return re.compile(rf"""'([^']*)'? | "((?:[^"{e}]|{e}.)*)"? | {e}(.?)""", re.VERBOSE | re.DOTALL)


def _bare(word: str, escape: str) -> str:
    """A word without its quotes and escapes."""
    escaped = re.compile(f"{re.escape(escape)}(.)", re.DOTALL)

    def inside(match: re.Match[str]) -> str:
        single, double, letter = match.groups()
        return single or escaped.sub(r"\1", double or "") or letter or ""

    return _quoting(escape).sub(inside, word)


def first(text: str) -> tuple[str, str]:
    """The first word and what follows it; two empty texts where there is none."""
    match = _FIRST.fullmatch(text)
    return (match[1], match[2]) if match else ("", "")


def array(text: str, place: instructions.Place) -> tuple[str, ...] | None:
    """The words of a JSON array; None where the text is no JSON, which makes it the shell form.

    An array with something else than texts in it is a mistake, as in Docker.
    """
    if not text.startswith("["):
        return None
    try:
        # Numbers are not looked at: one of a thousand digits is as wrong as 1, and no reason to compute it.
        found = json.loads(text, parse_int=_nothing, parse_float=_nothing, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in found):
        raise mistakes.at(place, 'the JSON form holds texts only; write numbers in quotes: ["sleep", "5"]')
    return tuple(_storable(word, place) for word in found)


def _nothing(_text: str) -> None:
    return None


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _storable(word: str, place: instructions.Place) -> str:
    if "\0" in word:
        raise mistakes.at(place, "a NUL character in the JSON form; remove it")
    # Half of a surrogate pair cannot be written anywhere; Docker puts the same sign in its place.
    return _UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", word)


def pairs(text: str, *, escape: str, place: instructions.Place) -> tuple[tuple[str, str], ...]:
    """What ENV and LABEL say: `a=1 b=2`, or the old `a 1` in which all that follows the name is its value."""
    found = split(text, escape=escape)
    if not found:
        raise mistakes.at(place, "there is nothing to set; write NAME=VALUE")
    if "=" not in found[0]:
        name, value = first(text)
        if not value:
            raise mistakes.at(place, f"{mistakes.shown(name)} has no value; write {mistakes.shown(name)}=VALUE")
        return ((name, value),)
    return tuple(_pair(word, place) for word in found)


def _pair(word: str, place: instructions.Place) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise mistakes.at(place, f"{mistakes.shown(word)} has no '='; write NAME=VALUE, with quotes around spaces")
    if not name:
        raise mistakes.at(place, f"{mistakes.shown(word)} has no name; write NAME=VALUE")
    return name, value

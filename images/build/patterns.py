"""The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` is any text, `?` any character, `\\*` a star.

A pattern is the pieces between its stars. Each piece is looked for once, from where the one before it ended, so that no
pattern makes us go back: the time is that of the value times the longest piece, and both are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PATTERN = 256
_TOKEN = re.compile(r"\\(.)|(.)", re.DOTALL)
_ANY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Pieces of characters (`""` stands for any one); between two of them stood a star."""

    pieces: tuple[tuple[str, ...], ...]

    def reversed(self) -> Pattern:
        return Pattern(pieces=tuple(piece[::-1] for piece in self.pieces[::-1]))


def parse(text: str) -> Pattern:
    """Reads a pattern. Raises ValueError where it is longer than any that a person writes."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"a pattern of more than {MAX_PATTERN} characters; shorten it")
    pieces: list[list[str]] = [[]]
    for escaped, plain in _TOKEN.findall(text):
        if plain == "*":
            pieces.append([])
        else:
            pieces[-1].append(escaped or (_ANY if plain == "?" else plain))
    return Pattern(pieces=tuple(tuple(piece) for piece in pieces))


def without_prefix(value: str, pattern: Pattern, *, longest: bool) -> str:
    """`${v#p}` and `${v##p}`: `a/b/c` without `*/` is `b/c`, and without the longest one `c`."""
    end = _end(value, pattern, 0, longest=longest)
    return value if end is None else value[end:]


def without_suffix(value: str, pattern: Pattern, *, longest: bool) -> str:
    """`${v%p}` and `${v%%p}`: a prefix, seen from the other end."""
    return without_prefix(value[::-1], pattern.reversed(), longest=longest)[::-1]


def replaced(value: str, pattern: Pattern, replacement: str, *, everywhere: bool) -> str:
    """`${v/p/r}` and `${v//p/r}`: the longest match at the first place that has one. An empty pattern is nowhere."""
    if not value and len(pattern.pieces) > 1 and not any(pattern.pieces):
        return replacement
    found: list[str] = []
    position = 0
    while span := _search(value, pattern, position):
        found += (value[position : span[0]], replacement)
        position = span[1]
        if not everywhere:
            break
    return "".join((*found, value[position:]))


def _search(value: str, pattern: Pattern, start: int) -> tuple[int, int] | None:
    """The first stretch that is not empty."""
    if start == len(value):
        return None
    begin = _find(value, pattern.pieces[0], start)
    end = None if begin is None else _end(value, pattern, begin, longest=True)
    # Where the first piece is found and the others are not, a later beginning leaves them even less room.
    return None if begin is None or end is None or begin == end else (begin, end)


def _end(value: str, pattern: Pattern, start: int, *, longest: bool) -> int | None:
    """Where a match that begins at `start` ends; None if there is none."""
    head, *middle = pattern.pieces
    if not _is_at(value, head, start):
        return None
    end: int | None = start + len(head)
    for index, piece in enumerate(middle):
        assert end is not None, "left as soon as a piece is missing"
        is_last = index == len(middle) - 1
        begin = (_rfind if longest and is_last else _find)(value, piece, end)
        if begin is None:
            return None
        end = begin + len(piece)
    return end


def _is_at(value: str, piece: tuple[str, ...], start: int) -> bool:
    there = value[start : start + len(piece)]
    return len(there) == len(piece) and all(sign in {letter, _ANY} for sign, letter in zip(piece, there, strict=True))


def _find(value: str, piece: tuple[str, ...], start: int) -> int | None:
    if _ANY not in piece:
        found = value.find("".join(piece), start)
        return None if found < 0 else found
    match = _expression(piece).search(value, start)
    return match.start() if match else None


def _rfind(value: str, piece: tuple[str, ...], start: int) -> int | None:
    """The last place at or after `start`."""
    found = _find(value[start:][::-1], piece[::-1], 0)
    return None if found is None else len(value) - found - len(piece)


def _expression(piece: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("".join(re.escape(sign) if sign else "." for sign in piece), re.DOTALL)

"""`--chmod`: octal digits, or the symbolic form of chmod(1), as a function of the mode a file has."""

from __future__ import annotations

import re

from images import errors

_OCTAL = re.compile(r"[0-7]{1,4}")
_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_SET_ID = {"u": 0o4000, "g": 0o2000}
_STICKY = 0o1000


def check(text: str) -> str:
    """The text unchanged, or `InvalidImage` that says how it should look."""
    if not _OCTAL.fullmatch(text) and not all(_CLAUSE.fullmatch(part) for part in text.split(",")):
        raise errors.InvalidImage(f"--chmod={text!r:.60}: expected octal digits such as 755, or u=rwX,go=rX")
    return text


def apply(text: str, mode: int, *, is_folder: bool) -> int:
    """The new mode. `X` is execute where the file is a folder, or has it already: `apply("a+X", 0o744)` is 0o755."""
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    for part in text.split(","):
        clause = _CLAUSE.fullmatch(part)
        assert clause is not None, "checked before"
        mode = _change(mode, clause[1] or "a", clause[2], clause[3], is_folder=is_folder)
    return mode


def _change(mode: int, who: str, operator: str, letters: str, *, is_folder: bool) -> int:
    whom = "ugo" if "a" in who else who
    bits = sum({_BITS[letter] for letter in letters if letter in _BITS})
    if "X" in letters and (is_folder or mode & 0o111):
        bits |= _BITS["x"]
    wanted = sum(bits << _SHIFTS[one] for one in set(whom))
    if "s" in letters:
        wanted |= sum(_SET_ID.get(one, 0) for one in set(whom))
    wanted |= _STICKY if "t" in letters else 0
    match operator:
        case "+":
            return mode | wanted
        case "-":
            return mode & ~wanted
        case _:
            kept = mode & ~sum(7 << _SHIFTS[one] for one in set(whom))
            return kept & ~sum(_SET_ID.get(one, 0) for one in set(whom)) | wanted

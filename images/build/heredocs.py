"""Where heredocs begin in an instruction: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF`, several in one line.

They begin a word, as Docker has it; `<<` inside quotes, in `$((1 << 2))` and in a here-string `<<<` begins none. After
a space (`<< EOF`) only a plain name counts. A name ends where a shell's word would: `<<EOF|sort`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# What is passed over as one piece: escaped letters, quoted text, arithmetic, and words that begin no heredoc.
_PASSED = re.compile(
    r"""\\. | '[^']*' | "(?:[^"\\]|\\.)*" | \(\([^()]*(?:\([^()]*\)[^()]*)*\)\) | [^\s\\'"(]+ | .""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = re.compile(
    r"""\d*<<(?P<dash>-?)
    (?: (?P<near>(?: '[^'\n]*' | "[^"\n]*" | \\. | [^\s<>|&;()'"\\] )+)
      | [ \t]+ (?P<far> '[\w.-]+' | "[\w.-]+" | [A-Za-z_][\w.-]* ) (?![^\s<>|&;()]) )""",
    re.VERBOSE,
)
_QUOTING = re.compile(r"""\\(.)|['"]""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """`<<-"NAME"`: which line ends the body, and what is done to it."""

    name: str
    expands: bool
    strips_tabs: bool


def openings(line: str) -> Iterator[Opening]:
    """Every heredoc that a line begins, in the order of their bodies."""
    position = 0
    while position < len(line):
        starts_word = position == 0 or line[position - 1].isspace()
        if starts_word and (match := _OPENING.match(line, position)):
            yield _opening(match)
        else:
            match = _PASSED.match(line, position)
        assert match is not None, "every character is passed over by some branch"
        position = match.end()


def opening(word: str) -> Opening | None:
    """What a word of COPY or ADD begins, if it is a heredoc from end to end."""
    match = _OPENING.fullmatch(word)
    return _opening(match) if match else None


def _opening(match: re.Match[str]) -> Opening:
    written = match["near"] or match["far"]
    name = _QUOTING.sub(lambda quoting: quoting[1] or "", written)
    return Opening(name=name, expands=name == written, strips_tabs=bool(match["dash"]))

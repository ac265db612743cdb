"""The variables inside a text: `$v`, `${v:-w}`, `${v##p}` and their like, quotes and escapes, read in one pass.

The rules are Docker's. Single quotes keep everything; inside double quotes variables are replaced, and the escape
character escapes a quote, a dollar and itself; elsewhere it takes the next character as it is. `$` before what is no
name is a dollar. What is unset is empty. Words are nested (`${a:-${b:-c}}`) up to a bound, and so is what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from images.build import patterns

MAX_DEPTH = 32
# A variable that is longer reaches no program: Linux refuses an argument or variable of more (MAX_ARG_STRLEN).
MAX_LENGTH = 128 * 1024
# Texts that come out of one heredoc; nothing else is as long.
MAX_CONTENT = 4 << 20
_NAME = re.compile(r"[0-9]+|[@*#?$!-]|[^\W\d]\w*")
_SET = "+"
_UNSET = "-"
_REQUIRED = "?"

# Text, and whether quotes or escapes hold it together: spaces in it divide no words then.
Piece: TypeAlias = tuple[str, bool]


class SubstitutionError(ValueError):
    """The text is not written as one with variables; the message says what is wrong, the caller says where."""


class Noting(dict[str, str]):
    """Variables that remember which of them were used without being set, and without a word for that case."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.missing: list[str] = []


def pieces(text: str, variables: Mapping[str, str], *, escape: str, with_quotes: bool = True) -> list[Piece]:
    """The text with its variables replaced, in pieces; quotes mean nothing where `with_quotes` is false."""
    limit = MAX_LENGTH if with_quotes else MAX_CONTENT
    reader = _Reader(text=text, variables=variables, escape=escape, with_quotes=with_quotes, room=limit + len(text))
    found = reader.until("", keeps_escapes=False)
    if sum(len(piece) for piece, _ in found) > limit:
        raise SubstitutionError(f"more than {limit} characters come out of it; shorten its variables")
    return found


@cache
def _plain(stops: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(stops)}]+")


@dataclass(slots=True, kw_only=True)
class _Reader:
    """One pass over a text; `room` is how many more characters may be put together from variables."""

    text: str
    variables: Mapping[str, str]
    escape: str
    with_quotes: bool
    room: int
    position: int = 0
    depth: int = 0

    @property
    def _here(self) -> str:
        return self.text[self.position : self.position + 1]

    def _take(self) -> str:
        self.position += 1
        return self.text[self.position - 1 : self.position]

    def until(self, stop: str, *, keeps_escapes: bool) -> list[Piece]:
        """Everything up to `stop`, which is passed; up to the end where that is "". Patterns keep their escapes."""
        found: list[Piece] = []
        quotes = "'\"" if self.with_quotes else ""
        plain = _plain(f"${self.escape}{quotes}{stop}")
        while letter := self._here:
            if letter == stop:
                self.position += 1
                return found
            if match := plain.match(self.text, self.position):
                self.position = match.end()
                found.append((match[0], False))
            elif letter == "$":
                found.append((self._variable(), False))
            elif letter == self.escape:
                found.append((self._escaped(keeps_escapes=keeps_escapes), True))
            else:
                found.append((self._quoted(), True))
        if stop:
            raise SubstitutionError(
                f"${{…}} has no '{stop}' at its end; close it, or write {self.escape}$ for a dollar"
            )
        return found

    def _escaped(self, *, keeps_escapes: bool) -> str:
        self.position += 1
        letter = self._take()
        # A pattern has backslashes, whatever the file's escape character is.
        return f"\\{letter}" if keeps_escapes and letter else letter

    def _quoted(self) -> str:
        quote = self._take()
        if quote == '"':
            return self._double()
        end = self.text.find("'", self.position)
        if end < 0:
            raise SubstitutionError(f"a single quote is never closed; close it, or write {self.escape}' for the sign")
        found = self.text[self.position : end]
        self.position = end + 1
        return found

    def _double(self) -> str:
        found: list[str] = []
        plain = _plain(f'${self.escape}"')
        while letter := self._here:
            if match := plain.match(self.text, self.position):
                self.position = match.end()
                found.append(match[0])
            elif letter == "$":
                found.append(self._variable())
            elif letter == '"':
                self.position += 1
                return "".join(found)
            else:
                found.append(self._escaped_in_double())
        raise SubstitutionError(f'a double quote is never closed; close it, or write {self.escape}" for the sign')

    def _escaped_in_double(self) -> str:
        self.position += 1
        if self._here and self._here in {'"', "$", self.escape}:
            return self._take()
        return self.escape if self._here else ""

    def _variable(self) -> str:
        self.position += 1
        if self._here != "{":
            name = self._name()
            return self._bounded(self._plainly(name)) if name else "$"
        self.position += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SubstitutionError(f"${{…}} inside each other more than {MAX_DEPTH} deep; set variables in between")
        found = self._bounded(self._braced())
        self.depth -= 1
        return found

    def _bounded(self, value: str) -> str:
        self.room -= len(value)
        if self.room < 0:
            raise SubstitutionError(f"more than {MAX_LENGTH} characters come out of it; shorten its variables")
        return value

    def _name(self) -> str:
        match = _NAME.match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match[0]

    def _braced(self) -> str:
        name = self._name()
        if not name:
            raise SubstitutionError(f"${{ without a name after it; write ${{NAME}}, or {self.escape}$ for a dollar")
        value = self.variables.get(name)
        match self._take():
            case "}":
                return self._plainly(name)
            case ":" if self._here and self._here in "-+?":
                return self._chosen(name, value or None, value)
            case "-" | "+" | "?":
                self.position -= 1
                return self._chosen(name, value, value)
            case "#" | "%":
                self.position -= 1
                return self._trimmed(value or "")
            case "/":
                return self._replaced(value or "")
            case "":
                raise SubstitutionError(f"${{{name} has no '}}' at its end; close it")
            case _:
                return self._unknown(name)

    def _plainly(self, name: str) -> str:
        if isinstance(self.variables, Noting) and name not in self.variables:
            self.variables.missing.append(name)
        return self.variables.get(name, "")

    def _unknown(self, name: str) -> str:
        written = self.text[self.position - 1 : self.position + 1]
        raise SubstitutionError(f"${{{name}{written}: after the name may come :- :+ :? - + ? # % / or }}")

    def _word(self, *, keeps_escapes: bool = False, stop: str = "}") -> str:
        return "".join(piece for piece, _ in self.until(stop, keeps_escapes=keeps_escapes))

    def _chosen(self, name: str, present: str | None, value: str | None) -> str:
        operator = self._take()
        word = self._word()
        if operator == _SET:
            return "" if present is None else word
        if present is not None:
            return present
        if operator == _UNSET:
            return word
        assert operator == _REQUIRED, "the caller looked"
        raise SubstitutionError(f"{name}: {word or ('it must be set' if value is None else 'it must not be empty')}")

    def _trimmed(self, value: str) -> str:
        operator = self._take()
        longest = self._here == operator
        self.position += longest
        pattern = patterns.parse(self._word(keeps_escapes=True))
        trim = patterns.without_prefix if operator == "#" else patterns.without_suffix
        return trim(value, pattern, longest=longest)

    def _replaced(self, value: str) -> str:
        everywhere = self._here == "/"
        self.position += everywhere
        pattern = patterns.parse(self._word(keeps_escapes=True, stop="/"))
        replacement = self._word()
        return patterns.replaced(value, pattern, replacement, everywhere=everywhere)

"""Bytes to logical lines: directives, comments, continuations and heredocs; what an instruction is comes later.

The rules, all of Docker's:

- A parser directive (`# escape=`) counts only before everything else, blank lines and other comments among it.
- A line that ends in the escape character goes on in the next; comments and blank lines inside are passed over.
  Two escape characters at the end are an escaped one, and end the line.
- The body of a heredoc is taken as it stands, up to a line that holds its name alone.

Lines that end in CR LF are read as if they ended in LF. What is not UTF-8 may stand in a comment only.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from images import errors
from images.build import heredocs, instructions, mistakes

MAX_SIZE_BYTES = 1 << 20
MAX_INSTRUCTIONS = 10_000
_DIRECTIVE = re.compile(r"\s*#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(\S(?:.*\S)?)\s*")
_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_ESCAPES = ("\\", "`")
_ONBUILD = re.compile(r"onbuild\s+", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_UNREADABLE = re.compile(r"[\ud800-\udfff]")
_WITH_HEREDOCS = re.compile(r"(?:onbuild\s+)?(?:run|copy|add)\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One instruction: its keyword in capitals, what follows it, and the bodies that belong to it."""

    place: instructions.Place
    keyword: str
    rest: str
    heredocs: tuple[instructions.Heredoc, ...] = ()

    def inner(self) -> Line:
        """The line that follows ONBUILD, at the same place, as it goes into an image's configuration."""
        text = _ONBUILD.sub("", self.place.text, count=1)
        place = instructions.Place(file=self.place.file, line=self.place.line, text=text)
        return _line(place, self.rest, self.heredocs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A file's lines, with what its directives say."""

    lines: tuple[Line, ...]
    directives: dict[str, str]
    warnings: tuple[str, ...]

    @property
    def escape(self) -> str:
        return self.directives.get("escape", _ESCAPES[0])


def read(text: bytes, *, name: str) -> Lines:
    """Every logical line of a file. Raises InvalidDockerfile."""
    if len(text) > MAX_SIZE_BYTES:
        remedy = "move its scripts to files, and COPY them"
        raise errors.InvalidDockerfile(f"{name}: larger than {MAX_SIZE_BYTES} bytes; {remedy}")
    decoded = text.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    reader = _Reader(name=name, physical=decoded.replace("\r\n", "\n").split("\n"))
    directives = _directives(reader)
    found = _logical(reader, directives.get("escape", _ESCAPES[0]))
    return Lines(lines=tuple(found), directives=directives, warnings=tuple(reader.warnings))


@dataclass(slots=True, kw_only=True)
class _Reader:
    """Where we are; `number` counts from 1 and is that of the line read last."""

    name: str
    physical: list[str]
    number: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def at_end(self) -> bool:
        return self.number == len(self.physical)

    def peek(self) -> str:
        return self.physical[self.number]

    def next(self) -> str:
        self.number += 1
        return self.physical[self.number - 1]

    def place(self, text: str) -> instructions.Place:
        return instructions.Place(file=self.name, line=self.number, text=text)


def _directives(reader: _Reader) -> dict[str, str]:
    found: dict[str, str] = {}
    while not reader.at_end and (match := _DIRECTIVE.fullmatch(reader.peek())):
        key, value = match[1].lower(), match[2]
        if key not in _DIRECTIVES:
            break
        reader.next()
        if key in found:
            raise mistakes.at(reader.place(""), f"a second directive {key}; leave one")
        if key == "escape" and value not in _ESCAPES:
            raise mistakes.at(reader.place(""), f"escape={mistakes.shown(value)}: it may be \\ or `")
        found[key] = _clean(value, reader.place(""))
    return found


def _logical(reader: _Reader, escape: str) -> list[Line]:
    found: list[Line] = []
    while not reader.at_end:
        start = reader.next().lstrip()
        if not start or start.startswith("#"):
            continue
        place = reader.place(start)
        if len(found) == MAX_INSTRUCTIONS:
            raise mistakes.at(place, f"more than {MAX_INSTRUCTIONS} instructions; build it in several images")
        text = _clean(_continued(reader, start, escape), place).strip()
        # A line of nothing but escape characters that goes on into nothing says nothing.
        if text:
            found.append(_with_bodies(reader, instructions.Place(file=reader.name, line=place.line, text=text)))
    return found


def _continued(reader: _Reader, start: str, escape: str) -> str:
    parts, goes_on = [], True
    first, line = reader.number, start
    while goes_on:
        line, goes_on = _continuation(line, escape)
        parts.append(line)
        line = _next_inside(reader, first) if goes_on else ""
    return "".join(parts)


def _continuation(line: str, escape: str) -> tuple[str, bool]:
    """The line without what makes it go on, and whether something did."""
    kept = line.rstrip(" \t")
    if kept.endswith(escape) and not kept.endswith(escape * 2):
        return kept[:-1], True
    return line, False


def _next_inside(reader: _Reader, first: int) -> str:
    """The next line that counts, or "" where the file ends."""
    while not reader.at_end:
        line = reader.next()
        if not line.strip():
            if not reader.at_end:
                _warn_of_gap(reader, first)
        elif not line.lstrip().startswith("#"):
            return line
    return ""


def _warn_of_gap(reader: _Reader, first: int) -> None:
    warning = f"{reader.name}:{first}: an empty line inside the instruction is passed over; make it a comment"
    if reader.warnings[-1:] != [warning]:
        reader.warnings.append(warning)


def _with_bodies(reader: _Reader, place: instructions.Place) -> Line:
    if "<<" not in place.text or not _WITH_HEREDOCS.match(place.text):
        return _line(place, place.text, ())
    bodies = tuple(_body(reader, place, opening) for opening in heredocs.openings(place.text))
    ends = "".join(f"\n{body.content}{body.name}" for body in bodies)
    whole = instructions.Place(file=place.file, line=place.line, text=place.text + ends)
    return _line(whole, place.text, bodies)


def _body(reader: _Reader, place: instructions.Place, opening: heredocs.Opening) -> instructions.Heredoc:
    lines: list[str] = []
    while not reader.at_end:
        line = reader.next()
        line = line.lstrip("\t") if opening.strips_tabs else line
        if line == opening.name:
            content = _clean("".join(f"{each}\n" for each in lines), place)
            return instructions.Heredoc(name=opening.name, content=content, expands=opening.expands)
        lines.append(line)
    raise mistakes.at(place, f"<<{mistakes.shown(opening.name)} has no end; write a line with its name alone")


def _line(place: instructions.Place, text: str, bodies: tuple[instructions.Heredoc, ...]) -> Line:
    keyword, _, rest = _SPACE.sub(" ", text, count=1).partition(" ")
    return Line(place=place, keyword=keyword.upper(), rest=rest.strip(), heredocs=bodies)


def _clean(text: str, place: instructions.Place) -> str:
    """Refuses what no argument of a program and no JSON document can hold."""
    if "\0" in text:
        raise mistakes.at(place, "a NUL byte; remove it")
    if not text.isascii() and _UNREADABLE.search(text):
        raise mistakes.at(place, "bytes that are not UTF-8; save the file as UTF-8")
    return text

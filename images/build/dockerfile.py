"""A Dockerfile's bytes to instructions: `parse` for a file, `trigger` for an ONBUILD that an image brings along.

Nothing is replaced and nothing is looked up here. What is wrong is told with file, line, instruction and remedy, before
anything is built. The way: bytes → `lines` (logical lines with heredocs) → one reader for each keyword → stages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from images import errors
from images.build import commands, copies, graph, instructions, lines, mistakes, options, settings, words

MAX_STAGES = 500
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*", re.ASCII)
_Reader: TypeAlias = Callable[[lines.Line, str], instructions.Instruction]

TRIGGER_ESCAPE = "\\"
"""What escapes in the triggers of an image, whatever it was in the Dockerfile that it comes from, and in no file."""


def parse(text: bytes, *, name: str = "Dockerfile") -> instructions.Dockerfile:
    """Reads a whole file of at most `lines.MAX_SIZE_BYTES`; `name` is for messages. Raises InvalidDockerfile."""
    found = lines.read(text, name=name)
    parts = _Parts()
    for line in found.lines:
        _add(parts, line, found.escape)
    if not parts.stages:
        raise errors.InvalidDockerfile(f"{name}: there is no FROM; begin with FROM IMAGE, or FROM scratch")
    return instructions.Dockerfile(
        name=name,
        globals=tuple(parts.globals),
        stages=tuple(stage.value(index) for index, stage in enumerate(parts.stages)),
        escape=found.escape,
        syntax=found.directives.get("syntax", ""),
        check=found.directives.get("check", ""),
        warnings=(*found.warnings, *parts.warnings),
    )


def trigger(text: str, *, image: str) -> instructions.Instruction:
    """What an ONBUILD of a base image says: its configuration keeps the text. `image` is for messages."""
    found = _one_line(text, f"ONBUILD of {image}")
    _check_trigger(found)
    return _instruction(found, TRIGGER_ESCAPE)


def lone(text: str, *, name: str) -> instructions.Instruction:
    """An instruction that stands in no file. `name` is for messages."""
    return _instruction(_one_line(text, name), TRIGGER_ESCAPE)


def _one_line(text: str, name: str) -> lines.Line:
    found = lines.read(text.encode(errors="surrogateescape"), name=name).lines
    if len(found) != 1:
        raise errors.InvalidDockerfile(f"{name}: {mistakes.shown(text) or 'an empty text'} is not one instruction")
    return found[0]


@dataclass(slots=True, kw_only=True)
class _Open:
    """A stage that is being read."""

    origin: instructions.From
    found: list[instructions.Instruction] = field(default_factory=list)

    def value(self, index: int) -> instructions.Stage:
        return instructions.Stage(index=index, origin=self.origin, instructions=tuple(self.found))


@dataclass(slots=True, kw_only=True)
class _Parts:
    globals: list[instructions.Arg] = field(default_factory=list)
    stages: list[_Open] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _add(parts: _Parts, line: lines.Line, escape: str) -> None:
    if line.keyword == "FROM":
        _begin(parts, _from(line, escape))
        return
    found = _instruction(line, escape)
    if parts.stages:
        parts.stages[-1].found.append(found)
    elif isinstance(found, instructions.Arg):
        parts.globals.append(found)
    else:
        raise mistakes.at(line.place, "it stands before the first FROM, where only ARG may; move it below")
    if line.keyword == "MAINTAINER":
        parts.warnings.append(f"{line.place}: MAINTAINER is out of use; write LABEL maintainer=NAME")


def _begin(parts: _Parts, origin: instructions.From) -> None:
    if len(parts.stages) == MAX_STAGES:
        raise mistakes.at(origin.place, f"more than {MAX_STAGES} stages; build it as several images")
    if origin.name and any(stage.origin.name == origin.name for stage in parts.stages):
        parts.warnings.append(f"{origin.place}: a second stage {origin.name}; from here on the name means this one")
    parts.stages.append(_Open(origin=origin))


def _from(line: lines.Line, escape: str) -> instructions.From:
    given, rest = options.read(line, {"platform": options.Kind.TEXT}, escape=escape)
    said = words.listed(rest)
    if len(said) not in {1, 3} or (len(said) == 3 and said[1].upper() != "AS"):
        raise mistakes.at(line.place, "write FROM IMAGE, or FROM IMAGE AS NAME")
    name = said[2].lower() if len(said) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        told = f"{mistakes.shown(said[2])} is no name for a stage"
        raise mistakes.at(line.place, f"{told}; begin with a letter, then letters, digits, '-', '_' or '.'")
    if name == graph.SCRATCH:
        raise mistakes.at(line.place, "scratch is the empty image; give the stage another name")
    return instructions.From(place=line.place, image=said[0], name=name, platform=given.text("platform"))


def _onbuild(line: lines.Line, escape: str) -> instructions.Onbuild:
    if not line.rest:
        raise mistakes.at(line.place, "nothing follows it; write ONBUILD and an instruction")
    inner = line.inner()
    _check_trigger(inner)
    return instructions.Onbuild(place=line.place, text=inner.place.text, instruction=_instruction(inner, escape))


def _check_trigger(line: lines.Line) -> None:
    if line.keyword in {"ONBUILD", "FROM", "MAINTAINER"}:
        raise mistakes.at(line.place, "ONBUILD may not hold ONBUILD, FROM or MAINTAINER; write it directly")


_READERS: dict[str, _Reader] = {
    "ADD": copies.read,
    "ARG": settings.arg,
    "CMD": commands.cmd,
    "COPY": copies.read,
    "ENTRYPOINT": commands.entrypoint,
    "ENV": settings.env,
    "EXPOSE": settings.expose,
    "HEALTHCHECK": commands.healthcheck,
    "LABEL": settings.label,
    "MAINTAINER": settings.maintainer,
    "ONBUILD": _onbuild,
    "RUN": commands.run,
    "SHELL": commands.shell,
    "STOPSIGNAL": settings.stopsignal,
    "USER": settings.user,
    "VOLUME": settings.volume,
    "WORKDIR": settings.workdir,
}
KEYWORDS: Iterable[str] = ("FROM", *_READERS)


def _instruction(line: lines.Line, escape: str) -> instructions.Instruction:
    read = _READERS.get(line.keyword)
    if read is None:
        word = mistakes.shown(line.keyword)
        raise mistakes.at(line.place, f"there is no instruction {word}; {mistakes.near(line.keyword, KEYWORDS)}")
    return read(line, escape)

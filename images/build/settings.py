"""The instructions that only set something: ARG, ENV, LABEL, WORKDIR, USER, EXPOSE, VOLUME, STOPSIGNAL, MAINTAINER."""

from __future__ import annotations

from images.build import instructions, lines, mistakes, options, words


def arg(line: lines.Line, escape: str) -> instructions.Arg:
    found = words.split(_something(line, escape, "ARG NAME or ARG NAME=VALUE"), escape=escape)
    return instructions.Arg(place=line.place, variables=tuple(_declaration(word, line) for word in found))


def _declaration(word: str, line: lines.Line) -> tuple[str, str | None]:
    name, equals, value = word.partition("=")
    if not name:
        raise mistakes.at(line.place, f"{mistakes.shown(word)} has no name; write ARG NAME=VALUE")
    return name, value if equals else None


def env(line: lines.Line, escape: str) -> instructions.Env:
    rest = options.none(line, escape=escape)
    return instructions.Env(place=line.place, variables=words.pairs(rest, escape=escape, place=line.place))


def label(line: lines.Line, escape: str) -> instructions.Label:
    rest = options.none(line, escape=escape)
    return instructions.Label(place=line.place, labels=words.pairs(rest, escape=escape, place=line.place))


def workdir(line: lines.Line, escape: str) -> instructions.Workdir:
    return instructions.Workdir(place=line.place, path=_something(line, escape, "WORKDIR /PATH"))


def user(line: lines.Line, escape: str) -> instructions.User:
    return instructions.User(place=line.place, user=_something(line, escape, "USER NAME or USER NAME:GROUP"))


def stopsignal(line: lines.Line, escape: str) -> instructions.Stopsignal:
    return instructions.Stopsignal(place=line.place, signal=_something(line, escape, "STOPSIGNAL SIGTERM"))


def maintainer(line: lines.Line, escape: str) -> instructions.Maintainer:
    return instructions.Maintainer(place=line.place, name=_something(line, escape, "LABEL maintainer=NAME"))


def expose(line: lines.Line, escape: str) -> instructions.Expose:
    ports = words.listed(_something(line, escape, "EXPOSE 80 or EXPOSE 53/udp"))
    return instructions.Expose(place=line.place, ports=ports)


def volume(line: lines.Line, escape: str) -> instructions.Volume:
    rest = _something(line, escape, "VOLUME /PATH")
    found = words.array(rest, line.place)
    paths = words.listed(rest) if found is None else found
    if not paths or not all(path.strip() for path in paths):
        raise mistakes.at(line.place, 'an empty path; write VOLUME /PATH or VOLUME ["/PATH"]')
    return instructions.Volume(place=line.place, paths=paths)


def _something(line: lines.Line, escape: str, form: str) -> str:
    rest = options.none(line, escape=escape)
    if not rest:
        raise mistakes.at(line.place, f"nothing follows it; write {form}")
    return rest

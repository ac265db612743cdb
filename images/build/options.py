"""The flags of one instruction, read against a table of those that it knows.

A flag is a text (`--chown=app`), a switch (`--link`, `--link=false`) or a list (`--exclude=…`, as often as one likes).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from images.build import instructions, lines, mistakes, words


class Kind(enum.Enum):
    """How often a flag may be given, and with what."""

    TEXT = "text"
    SWITCH = "switch"
    LIST = "list"


TRUE = frozenset({"1", "t", "true"})
FALSE = frozenset({"0", "f", "false"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was given; a flag that was not is "", False or empty."""

    given: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        return self.given.get(name, ("",))[0]

    def switch(self, name: str) -> bool:
        return self.text(name) in TRUE

    def every(self, name: str) -> tuple[str, ...]:
        return self.given.get(name, ())


def read(
    line: lines.Line, known: Mapping[str, Kind], *, escape: str, refused: Mapping[str, str] | None = None
) -> tuple[Options, str]:
    """The flags of a line, and what follows them. `refused` has the remedy for each that we know and do not do."""
    try:
        flags, rest = words.flags(line.rest, escape=escape)
    except ValueError as error:
        raise mistakes.at(line.place, str(error)) from error
    given: dict[str, list[str]] = {}
    for flag in flags:
        if flag.name in (refused or {}):
            raise mistakes.at(line.place, f"--{flag.name} is not supported; {(refused or {})[flag.name]}")
        if flag.name not in known:
            raise mistakes.at(line.place, _unknown(flag.name, known))
        value = _value(flag, known[flag.name], line.place)
        if flag.name in given and known[flag.name] is not Kind.LIST:
            raise mistakes.at(line.place, f"--{flag.name} is given twice; leave one")
        given.setdefault(flag.name, []).append(value)
    return Options(given={name: tuple(values) for name, values in given.items()}), rest


def none(line: lines.Line, *, escape: str) -> str:
    """What a line says, of an instruction without flags."""
    return read(line, {}, escape=escape)[1]


def _unknown(name: str, known: Mapping[str, Kind]) -> str:
    if not known:
        return f"--{mistakes.shown(name)}: this instruction has no flags; leave it out, or write -- before it"
    return f"unknown flag --{mistakes.shown(name)}; {mistakes.near(f'--{name}', (f'--{each}' for each in known))}"


def _value(flag: words.Flag, kind: Kind, place: instructions.Place) -> str:
    if kind is not Kind.SWITCH:
        if not flag.value:
            raise mistakes.at(place, f"--{flag.name} has no value; write --{flag.name}=VALUE")
        return flag.value
    value = "true" if flag.value is None else flag.value.lower()
    if value not in TRUE | FALSE:
        raise mistakes.at(place, f"--{flag.name}={mistakes.shown(value)}; write true or false")
    return value

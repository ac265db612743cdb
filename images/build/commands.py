"""The instructions that hold a command: RUN, CMD, ENTRYPOINT, HEALTHCHECK and SHELL.

A command that is a JSON array of texts is run as it is; everything else, a broken array among it, is the shell's.
"""

from __future__ import annotations

from collections.abc import Callable

from images.build import instructions, lines, mistakes, mounts, options, quantities, words

_TEXT, _LIST = options.Kind.TEXT, options.Kind.LIST
FLAGS = {"mount": _LIST, "network": _TEXT}
REFUSED = {
    "security": "builds have the limits of any container, and no way around them",
    "device": "builds have no devices but those of every container",
}
_NETWORKS = ("default", "none", "host")
CHECK_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), _TEXT)
_MAX_RETRIES = (1 << 31) - 1


def run(line: lines.Line, escape: str) -> instructions.Run:
    given, rest = options.read(line, FLAGS, escape=escape, refused=REFUSED)
    network = given.text("network") or "default"
    if network not in _NETWORKS:
        raise mistakes.at(line.place, f"--network={mistakes.shown(network)}; {mistakes.near(network, _NETWORKS)}")
    command = _command(line, rest)
    if not (command.line or command.words):
        raise mistakes.at(line.place, "there is nothing to run; write a command")
    found = tuple(mounts.read(text, line.place) for text in given.every("mount"))
    return instructions.Run(place=line.place, command=command, mounts=found, network=network)


def cmd(line: lines.Line, escape: str) -> instructions.Cmd:
    return instructions.Cmd(place=line.place, command=_resettable(line, escape))


def entrypoint(line: lines.Line, escape: str) -> instructions.Entrypoint:
    return instructions.Entrypoint(place=line.place, command=_resettable(line, escape))


def shell(line: lines.Line, escape: str) -> instructions.Shell:
    found = words.array(options.none(line, escape=escape), line.place)
    if not found:
        raise mistakes.at(line.place, 'it is written as JSON: SHELL ["/bin/sh", "-c"]')
    return instructions.Shell(place=line.place, words=found)


def _resettable(line: lines.Line, escape: str) -> instructions.Command:
    rest = options.none(line, escape=escape)
    if not rest:
        raise mistakes.at(line.place, f"there is no command; write one, or {line.keyword} [] to have none")
    return _command(line, rest)


def _command(line: lines.Line, rest: str) -> instructions.Command:
    found = words.array(rest, line.place)
    if found is None:
        return instructions.Command(line=rest, heredocs=line.heredocs)
    return instructions.Command(words=found)


def healthcheck(line: lines.Line, escape: str) -> instructions.Healthcheck:
    given, rest = options.read(line, CHECK_FLAGS, escape=escape)
    kind, command = words.first(rest)
    if kind.upper() == "NONE":
        if command or given.given:
            raise mistakes.at(line.place, "HEALTHCHECK NONE takes nothing; leave the rest out")
        return instructions.Healthcheck(place=line.place, command=None)
    if kind.upper() != "CMD" or not command or command.replace(" ", "") == "[]":
        raise mistakes.at(line.place, "write HEALTHCHECK CMD and a command, or HEALTHCHECK NONE")
    return instructions.Healthcheck(
        place=line.place,
        command=_command(line, command),
        interval_ns=_read(given, "interval", quantities.check_duration_ns, line),
        timeout_ns=_read(given, "timeout", quantities.check_duration_ns, line),
        start_period_ns=_read(given, "start-period", quantities.check_duration_ns, line),
        start_interval_ns=_read(given, "start-interval", quantities.check_duration_ns, line),
        retries=_read(given, "retries", _count, line),
    )


def _read(given: options.Options, name: str, read: Callable[[str], int], line: lines.Line) -> int:
    text = given.text(name)
    try:
        return read(text) if text else 0
    except ValueError as error:
        raise mistakes.at(line.place, f"--{name}: {error}") from error


def _count(text: str) -> int:
    number = quantities.whole_number(text, most=_MAX_RETRIES)
    if number is None:
        raise ValueError(f"{text!r:.60} is no number of tries; write 3")
    return number

"""Variables replaced in instructions: which fields of which instruction, and how.

The table of Docker's reference, which `expanded` executes:

| instruction | replaced in |
|---|---|
| FROM | image and platform, with the ARGs before the first FROM alone (`origin`) |
| ENV, LABEL, ARG | names and values, all with the variables as they were before the instruction |
| COPY, ADD | sources, target, `--chown`, `--chmod`, `--exclude`, `--checksum`, bodies of heredocs without quotes |
| RUN | the values of `--mount`, except `type` and `from`; the command is the shell's |
| EXPOSE | everything, and what comes out may be several words |
| WORKDIR, USER, VOLUME, STOPSIGNAL | everything |
| CMD, ENTRYPOINT, HEALTHCHECK, SHELL, MAINTAINER, ONBUILD | nothing |

What can be checked only afterwards is checked here: modes, ports, signals, sizes. Raises InvalidDockerfile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeAlias, TypeVar

from images.build import globs, instructions, mistakes, mounts, quantities, variables

Replace: TypeAlias = Callable[[str], str]
_Value = TypeVar("_Value")
_HEREDOC_ESCAPE = "\\"
_GIT = ("git://", "git@", "ssh://")


def expand(text: str, values: Mapping[str, str], *, escape: str = "\\", place: instructions.Place) -> str:
    """The text with its variables replaced and its quotes taken away, as one word."""
    if text.isalnum():
        return text
    return "".join(piece for piece, _ in _pieces(text, values, escape, place))


def words(text: str, values: Mapping[str, str], *, escape: str = "\\", place: instructions.Place) -> tuple[str, ...]:
    """The same, divided at the spaces that no quotes protect, those out of variables among them; no word is empty."""
    found = [""]
    for piece, is_one in _pieces(text, values, escape, place):
        parts = [piece] if is_one else _at_spaces(piece)
        found[-1] += parts[0]
        found += parts[1:]
    return tuple(word for word in found if word)


def _at_spaces(piece: str) -> list[str]:
    """Like split(), with an empty text where a space begins or ends the piece: the word beside it is over."""
    if not piece.strip():
        return ["", ""] if piece else [""]
    before, after = piece[0].isspace(), piece[-1].isspace()
    return [*([""] if before else []), *piece.split(), *([""] if after else [])]


def content(text: str, values: Mapping[str, str], *, place: instructions.Place) -> str:
    """The body of a heredoc of COPY or ADD: quotes stay, backslashes escape, whatever the file itself has."""
    found = _at(place, lambda: variables.pieces(text, values, escape=_HEREDOC_ESCAPE, with_quotes=False))
    return "".join(piece for piece, _ in found)


def origin(source: instructions.From, values: Mapping[str, str], escape: str = "\\") -> instructions.From:
    """FROM with the ARGs before the first FROM; what comes to nothing is told here, with the remedy."""
    image = expand(source.image, values, escape=escape, place=source.place)
    platform = expand(source.platform, values, escape=escape, place=source.place)
    if not image:
        told = f"{mistakes.shown(source.image)} comes to nothing"
        raise mistakes.at(source.place, f"{told}; give its ARG before the first FROM a default, or pass --build-arg")
    return replace(source, image=image, platform=platform)


def expanded(
    instruction: instructions.Instruction, values: Mapping[str, str], escape: str = "\\"
) -> instructions.Instruction:
    """The instruction with its variables replaced, ready to be carried out. EXPOSE has `80/tcp`, one for each port."""
    place = instruction.place

    def one(text: str) -> str:
        return expand(text, values, escape=escape, place=place)

    match instruction:
        case instructions.Env():
            return replace(instruction, variables=_pairs(instruction.variables, one, place))
        case instructions.Label():
            return replace(instruction, labels=_pairs(instruction.labels, one, place))
        case instructions.Arg():
            return replace(instruction, variables=_declared(instruction, one))
        case instructions.Run():
            return replace(
                instruction, mounts=tuple(mounts.expanded(mount, one, place) for mount in instruction.mounts)
            )
        case instructions.Copy():
            return _copy(instruction, one, values)
        case instructions.Expose():
            return replace(instruction, ports=_ports(instruction, values, escape))
        case _:
            return _simple(instruction, one)


def unset(
    instruction: instructions.Instruction,
    values: Mapping[str, str],
    escape: str = "\\",
    *,
    declared: Collection[str] = (),
) -> tuple[str, ...]:
    """A warning for each variable that the instruction uses and nobody has set: it comes to nothing.

    `${name:-}` says that this is meant, and so does an ARG without a value, of which `declared` holds the names. An
    instruction that cannot be replaced has no warnings: it has an error.
    """
    noting = variables.Noting(values)
    expanded(instruction, noting, escape)
    missing = (name for name in dict.fromkeys(noting.missing) if name.isidentifier() and name not in declared)
    return tuple(_not_set(name, instruction.place, values) for name in missing)


def _not_set(name: str, place: instructions.Place, values: Mapping[str, str]) -> str:
    near = mistakes.close(name, values)
    hint = f"did you mean ${near}?" if near else f"write ARG {name} before it, or ${{{name}:-}} if that is meant"
    return str(mistakes.at(place, f"${mistakes.shown(name)} is not set; {hint}"))


def _simple(instruction: instructions.Instruction, one: Replace) -> instructions.Instruction:
    match instruction:
        case instructions.Workdir():
            return replace(instruction, path=one(instruction.path))
        case instructions.User():
            return replace(instruction, user=one(instruction.user))
        case instructions.Volume():
            return replace(instruction, paths=_volumes(instruction, one))
        case instructions.Stopsignal():
            name = one(instruction.signal)
            _at(instruction.place, lambda: quantities.signal_number(name))
            return replace(instruction, signal=name)
        case _:
            return instruction


def _pieces(text: str, values: Mapping[str, str], escape: str, place: instructions.Place) -> list[variables.Piece]:
    return _at(place, lambda: variables.pieces(text, values, escape=escape), text)


def _at(place: instructions.Place, read: Callable[[], _Value], text: str = "") -> _Value:
    try:
        return read()
    except ValueError as error:
        raise mistakes.at(place, f"{mistakes.shown(text)}: {error}" if text else str(error)) from error


def _pairs(pairs: tuple[tuple[str, str], ...], one: Replace, place: instructions.Place) -> tuple[tuple[str, str], ...]:
    found = tuple((one(name), one(value)) for name, value in pairs)
    if not all(name for name, _ in found):
        raise mistakes.at(place, "a name comes to nothing; give its variable a value")
    return found


def _declared(instruction: instructions.Arg, one: Replace) -> tuple[tuple[str, str | None], ...]:
    return tuple((one(name), None if value is None else one(value)) for name, value in instruction.variables)


def _copy(copy: instructions.Copy, one: Replace, values: Mapping[str, str]) -> instructions.Copy:
    sources = tuple(one(source) for source in copy.sources)
    chmod = one(copy.chmod)
    if chmod:
        _at(copy.place, lambda: quantities.mode(chmod), f"--chmod={chmod}")
    for source in sources:
        _check_source(copy, source)
    return replace(
        copy,
        sources=sources,
        target=one(copy.target),
        heredocs=tuple(_heredoc(heredoc, values, copy.place) for heredoc in copy.heredocs),
        chown=one(copy.chown),
        chmod=chmod,
        exclude=tuple(one(pattern) for pattern in copy.exclude),
        checksum=one(copy.checksum),
    )


def _check_source(copy: instructions.Copy, source: str) -> None:
    is_address = copy.is_add and source.startswith(("http://", "https://"))
    if copy.is_add and (source.startswith(_GIT) or (is_address and source.partition("#")[0].endswith(".git"))):
        raise mistakes.at(copy.place, "git repositories are not fetched; clone it beforehand, and COPY what it holds")
    if not is_address:
        _at(copy.place, lambda: globs.match(source, ""))


def _heredoc(
    heredoc: instructions.Heredoc, values: Mapping[str, str], place: instructions.Place
) -> instructions.Heredoc:
    return replace(heredoc, content=content(heredoc.content, values, place=place)) if heredoc.expands else heredoc


def _ports(expose: instructions.Expose, values: Mapping[str, str], escape: str) -> tuple[str, ...]:
    written = (word for text in expose.ports for word in words(text, values, escape=escape, place=expose.place))
    found = (port for word in written for port in _at(expose.place, lambda word=word: quantities.ports(word)))  # type: ignore[misc]
    return tuple(dict.fromkeys(found))


def _volumes(volume: instructions.Volume, one: Replace) -> tuple[str, ...]:
    found = tuple(one(path) for path in volume.paths)
    if not all(found):
        raise mistakes.at(volume.place, "a path comes to nothing; give its variable a value")
    return found

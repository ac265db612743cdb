"""COPY and ADD as values: sources that are paths, addresses or heredocs, then the target."""

from __future__ import annotations

from images.build import heredocs, instructions, lines, mistakes, options, words

_TEXT, _SWITCH, _LIST = options.Kind.TEXT, options.Kind.SWITCH, options.Kind.LIST
_BOTH = {"chown": _TEXT, "chmod": _TEXT, "link": _SWITCH, "exclude": _LIST}
FLAGS = {**_BOTH, "from": _TEXT, "parents": _SWITCH}
ADD_FLAGS = {**_BOTH, "checksum": _TEXT}
REFUSED_IN_ADD = {
    "keep-git-dir": "git repositories are not fetched: clone it beforehand, and COPY what it holds",
    "unpack": "write ADD to unpack an archive, or COPY to take it as it is",
    "from": "use COPY --from",
}


def read(line: lines.Line, escape: str) -> instructions.Copy:
    """One COPY or ADD. Raises InvalidDockerfile."""
    is_add = line.keyword == "ADD"
    refused = REFUSED_IN_ADD if is_add else {}
    given, rest = options.read(line, ADD_FLAGS if is_add else FLAGS, escape=escape, refused=refused)
    *sources, target = _places(line, rest)
    if "$" in given.text("from"):
        stage = f"FROM {given.text('from')} AS NAME"
        raise mistakes.at(line.place, f"--from takes no variables; name a stage: {stage}")
    return instructions.Copy(
        place=line.place,
        sources=tuple(sources),
        target=target,
        heredocs=line.heredocs,
        from_=given.text("from"),
        chown=given.text("chown"),
        chmod=given.text("chmod"),
        link=given.switch("link"),
        parents=given.switch("parents"),
        exclude=given.every("exclude"),
        checksum=given.text("checksum"),
        is_add=is_add,
    )


def _places(line: lines.Line, rest: str) -> tuple[str, ...]:
    """The sources but for heredocs, which have their names from their bodies, and the target."""
    array = words.array(rest, line.place)
    found = words.listed(rest) if array is None else array
    if len(found) < 2 or not all(found):
        raise mistakes.at(line.place, f"it needs a source and a target; write {line.keyword} SOURCE TARGET")
    if array is not None:
        return array
    if heredocs.opening(found[-1]):
        raise mistakes.at(line.place, "a heredoc cannot be the target; write the file's name after it")
    paths = tuple(path for path in found if heredocs.opening(path) is None)
    _check_names(line, count=len(found) - len(paths))
    return paths


def _check_names(line: lines.Line, *, count: int) -> None:
    if any(each.name in {"", ".", ".."} or "/" in each.name for each in line.heredocs):
        raise mistakes.at(line.place, "a heredoc's name is that of a file; write <<NAME without slashes")
    if count != len(line.heredocs):
        raise mistakes.at(line.place, "a heredoc's name has no spaces in it or before it; write <<NAME")

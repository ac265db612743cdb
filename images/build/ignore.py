"""`.dockerignore`, and `--exclude`: which paths of a context are left out.

The rules are Docker's. A pattern that matches a folder stands for all that is in it. The last pattern that matches
decides; one that begins with `!` takes back in. Slashes at the beginning and the end mean nothing, `.` and `..` inside
are resolved; a line that begins with `#` is a comment.
"""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from images import errors
from images.build import globs, mistakes

NAME = ".dockerignore"
MAX_SIZE_BYTES = 1 << 20
MAX_PATTERNS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line: what it matches, and whether that is taken back in."""

    includes: bool
    ways: tuple[globs.Pattern, ...]

    def matches(self, path: str) -> bool:
        return any(way.matches_or_holds(path) for way in self.ways)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patterns:
    """All lines of a file; paths are relative to the context, with slashes and without `.` in them."""

    rules: tuple[Rule, ...] = ()

    def excludes(self, path: str) -> bool:
        decides = next((rule for rule in reversed(self.rules) if rule.matches(path)), None)
        return decides is not None and not decides.includes

    def may_include_below(self, folder: str) -> bool:
        """Whether an excluded folder must be looked into all the same: a later `!` names something in it."""
        for rule in reversed(self.rules):
            if rule.includes and any(way.may_match_below(folder) for way in rule.ways):
                return True
            if rule.matches(folder):
                return rule.includes
        return True


def names(dockerfile: str) -> tuple[str, str]:
    """Where to look, the first that is there counts: `Dockerfile.dockerignore` beside it, then the context's."""
    return f"{dockerfile}{NAME}", NAME


def parse(text: bytes, *, name: str = NAME) -> Patterns:
    """Reads a file; `name` is for messages. Raises InvalidDockerfile with the line that is no pattern."""
    if len(text) > MAX_SIZE_BYTES:
        raise errors.InvalidDockerfile(f"{name}: larger than {MAX_SIZE_BYTES} bytes; write patterns instead of names")
    # Names of files are bytes; those that are no UTF-8 are read as the file system's own names are.
    decoded = text.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    written = [(number, line.strip()) for number, line in enumerate(decoded.split("\n"), 1) if not line.startswith("#")]
    if len(written) > MAX_PATTERNS:
        raise errors.InvalidDockerfile(f"{name}: more than {MAX_PATTERNS} patterns; write fewer, wider ones")
    rules = (_rule(line, f"{name}:{number}") for number, line in written if line)
    return Patterns(rules=tuple(rule for rule in rules if rule is not None))


def patterns(written: Iterable[str], *, place: str) -> Patterns:
    """The same of `--exclude`, whose patterns come one by one; `place` is where they stand."""
    rules = (_rule(pattern.strip(), place) for pattern in written)
    return Patterns(rules=tuple(rule for rule in rules if rule is not None))


def _rule(line: str, place: str) -> Rule | None:
    includes = line.startswith("!")
    bare = line.removeprefix("!").strip()
    if not bare:
        raise errors.InvalidDockerfile(f"{place}: {line!r} names nothing; write a pattern after it")
    path = posixpath.normpath(bare).lstrip("/")
    if path in {"", "."}:
        return None
    try:
        return Rule(includes=includes, ways=globs.deep(path))
    except ValueError as error:
        raise errors.InvalidDockerfile(f"{place}: {mistakes.shown(bare)}: {error}") from error

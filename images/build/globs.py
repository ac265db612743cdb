"""File patterns: those of COPY and ADD (`*`, `?`, `[a-z]`, as in Go's filepath.Match), and `**` for `.dockerignore`.

A name is matched whole, component by component; nothing but `**` crosses a slash. Patterns become regular expressions
in which no star is tried twice (atomic groups: the piece after a star is taken where it is found first, since whatever
follows a later one follows the first as well). Time is that of the name times the pattern, whatever the pattern is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

MAX_PATTERN = 4096
_MAX_INNER = 3
_TOO_MANY = "more than 3 times ** between letters; write it between slashes: a/**/b"
_TOKEN = re.compile(
    r"""\\(?P<escaped>[^/]) | (?P<star>\*+) | (?P<any>\?)
    | (?P<class> \[\^? (?: (?:\\.|[^\\\]/-]) (?: -(?:\\.|[^\\\]/-]) )? )+ \] )
    | (?P<plain>[^\\*?\[/]+)""",
    re.VERBOSE | re.DOTALL,
)
_JOINED = re.compile(r"(\\.|[^*\\/])\*\*+/(?!\*(?!\*))", re.DOTALL)
_JOINED_BEFORE_STAR = re.compile(r"(\\.|[^*\\/])\*\*+/(?=\*)", re.DOTALL)
_RANGE = re.compile(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One way through the components of a name, as expressions; None stands for `**`."""

    components: tuple[str | None, ...]
    expression: re.Pattern[str]

    def matches(self, name: str) -> bool:
        """Whether it matches the whole name."""
        return self.expression.fullmatch(f"{name}/") is not None

    def matches_or_holds(self, name: str) -> bool:
        """Whether it matches the name, or a folder above it: the expression ends where a component does."""
        return self.expression.match(f"{name}/") is not None

    def may_match_below(self, folder: str) -> bool:
        """Whether something inside a folder could match that is not matched by the folder's own name."""
        for name, component in zip(folder.split("/"), self.components, strict=False):
            if component is None:
                return True
            if re.fullmatch(component, name, re.DOTALL) is None:
                return False
        return len(self.components) > folder.count("/") + 1


def match(pattern: str, name: str) -> bool:
    """Whether a pattern without `**` matches a whole name. Raises ValueError for a pattern that is not written as one.

    As Go's filepath.Match, but for one thing: a class (`[^a]`) matches no slash.
    """
    return _single(pattern).matches(name)


@lru_cache(maxsize=1024)
def _single(pattern: str) -> Pattern:
    return _pattern(tuple(_component(part) for part in _parts(pattern)))


def deep(pattern: str) -> tuple[Pattern, ...]:
    """A pattern in which `**` is any number of components; several, which match what any of them matches.

    Of Docker's readings of `**` beside other letters: `**x` is `**/x`, and `x**` at the end is `x*` with all below it.
    Between letters it may also be nothing, so that `x**y` and `x**/y` are `xy` or `x*/**/y`, and `x**/*y` is `x*y` or
    `x*/**/*y`. Raises ValueError.
    """
    ways = (way for spelled in _spelled(pattern) for way in _ways(_parts(spelled)))
    return tuple(_pattern(tuple(_deep_component(part) for part in way)) for way in ways)


def _spelled(pattern: str) -> list[str]:
    """The patterns that one stands for in which `**/` follows letters: without that slash."""
    done: list[str] = []
    left = [pattern]
    while left:
        each = left.pop()
        while (joined := _JOINED.sub(r"\1**", each)) != each:
            each = joined
        match = _JOINED_BEFORE_STAR.search(each)
        if match is None:
            done.append(each)
            continue
        before, rest = each[: match.start()] + match[1], each[match.end() :]
        left += [f"{before}{rest}", f"{before}*/**/{rest}"]
        if len(left) + len(done) > 1 << _MAX_INNER:
            raise ValueError(_TOO_MANY)
    return done


def _parts(pattern: str) -> list[str]:
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"a pattern of more than {MAX_PATTERN} characters; shorten it")
    # An escaped slash is a slash: no name has another kind.
    return pattern.replace("\\/", "/").split("/")


def _ways(parts: list[str]) -> Iterator[list[str]]:
    """The patterns that one with `**` beside letters stands for."""
    ways: list[list[str]] = [[]]
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        pieces = _around(part)
        if len(pieces) - 1 > _MAX_INNER or len(ways) > 1 << _MAX_INNER:
            raise ValueError(_TOO_MANY)
        ways = [[*way, *more] for way in ways for more in _part_ways(pieces, is_last=is_last)]
    return iter(ways)


def _around(part: str) -> list[str]:
    """What stands around each `**`; more than two stars are two."""
    return re.split(r"(?<!\\)\*\*+", part) if "**" in part else [part]


def _part_ways(pieces: list[str], *, is_last: bool) -> list[list[str]]:
    head, *rest = pieces
    if not rest:
        return [[head]]
    tails = _part_ways(rest, is_last=is_last)
    if not head:
        return [["**", *(tail if any(tail) else tail[1:])] for tail in tails]
    if rest == [""]:
        return [[f"{head}*"], [f"{head}*", "**"]] if is_last else [[head], [f"{head}*", "**"]]
    joined = [[head + tail[0], *tail[1:]] for tail in tails]
    return joined + [[f"{head}*", "**", *tail] for tail in tails]


def _deep_component(part: str) -> str | None:
    return None if part == "**" else _component(part)


def _pattern(components: tuple[str | None, ...]) -> Pattern:
    return Pattern(components=components, expression=re.compile(_expression(components), re.DOTALL))


def _expression(components: tuple[str | None, ...]) -> str:
    """For a name with a slash after each component, the last among them."""
    runs = [""]
    for component in components:
        if component is None:
            runs.append("")
        else:
            runs[-1] += f"{component}/"
    first, *others = runs
    # `a/**` is what is inside of a, not a itself.
    ends = "(?:[^/]*+/)+?" if others and not others[-1] else ""
    between = "".join(f"(?>(?:[^/]*+/)*?{run})" for run in others[:-1] if run)
    last = f"(?:[^/]*+/)*?{others[-1]}" if others and others[-1] else ""
    return first + between + last + ends


def _component(text: str) -> str:
    """One component as a regular expression."""
    pieces: list[str] = [""]
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(f"{text!r:.80} is no pattern; write [[] for a bracket, and no backslash at its end")
        position = token.end()
        if token["star"]:
            pieces.append("")
        else:
            pieces[-1] += _one(token)
    first, *others = pieces
    if not others:
        return first
    between = "".join(f"(?>[^/]*?{piece})" for piece in others[:-1] if piece)
    return f"{first}{between}[^/]*{others[-1]}"


def _one(token: re.Match[str]) -> str:
    if token["any"]:
        return "[^/]"
    if token["class"]:
        return _class(token["class"])
    return re.escape(token["escaped"] or token["plain"])


def _class(text: str) -> str:
    inside = text[1:-1]
    negated = inside.startswith("^")
    ranges = [(low[-1], (high or low)[-1]) for low, high in _RANGE.findall(inside[negated:])]
    # A range that goes backwards holds nothing, as in Go.
    listed = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in ranges if low <= high)
    if negated:
        return f"[^/{listed}]"
    return f"(?!/)[{listed}]" if listed else "(?!)"

"""What a registry wants to see before it answers: the header WWW-Authenticate (RFC 9110, 11.6.1).

The rule: whatever stands there is a stranger's text. It is read as far as it is well-formed and believed in nothing;
who gets credentials is decided in `realms`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_GAP = re.compile(r"[\s,]*")
_SCHEME = re.compile(_WORD)
# Possessive, so that hostile text costs one pass. Some servers forget the quotes, hence the generous second form.
_PARAMETER = re.compile(rf'({_WORD})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++))')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way in: `scheme` and the names of parameters are lower-case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all such headers, in order."""
    return tuple(challenge for header in headers for challenge in _parse_one(header))


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """The one to answer: Bearer with a realm before Basic; None when there is nothing that we know."""
    known = [entry for entry in challenges if entry.scheme == "basic" or _is_token_service(entry)]
    return max(known, key=lambda entry: entry.scheme == "bearer", default=None)


def _is_token_service(entry: Challenge) -> bool:
    return entry.scheme == "bearer" and bool(entry.parameters.get("realm"))


def _parse_one(header: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    place = 0
    while True:
        gap = _GAP.match(header, place)
        place = gap.end() if gap else place
        if found and (parameter := _PARAMETER.match(header, place)):
            name, quoted, plain = parameter.groups()
            found[-1][1].setdefault(name.lower(), plain if quoted is None else _ESCAPE.sub(r"\1", quoted))
            place = parameter.end()
        elif scheme := _SCHEME.match(header, place):
            found.append((scheme.group().lower(), {}))
            place = scheme.end()
        else:
            return [Challenge(scheme=name, parameters=parameters) for name, parameters in found]

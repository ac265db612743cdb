"""JSON from strangers: read with bounds, then field by field with the place in every complaint.

Two rules. Nothing is read past `MAX_DOCUMENT_BYTES` or nested deeper than `MAX_DEPTH`. And a key that stands twice is
refused, because two readers could then see two different images under one digest.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from images import digest as digests
from images import errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_DOCUMENT_BYTES = 4 << 20
MAX_DEPTH = 32
# Possessive, and the closing quote optional, so that hostile text costs one pass and no backtracking.
_BRACKET_OR_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """A JSON object and where it stands: `manifest sha256:…: layers[3].digest`."""

    place: str
    fields: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return self.fields.get(key) is not None

    def refuse(self, key: str, reason: str) -> NoReturn:
        raise errors.InvalidImage(f"{self.place}{key}: {reason}")

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self._typed(key, str, "text", default)
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value: int = self._typed(key, int, "a whole number", default)
        if isinstance(value, bool) or not 0 <= value < 1 << 63:
            self.refuse(key, f"expected a whole number from 0 to 2^63-1, found {value!r:.40}")
        return value

    def flag(self, key: str) -> bool:
        value: bool = self._typed(key, bool, "true or false", default=False)
        return value

    def digest(self, key: str) -> str:
        value = self.text(key)
        if not digests.is_digest(value):
            self.refuse(key, f"{value!r:.100} is not sha256: and 64 lower-case hex digits")
        return value

    def child(self, key: str) -> Object:
        """The object below `key`; an absent one is empty."""
        return Object(place=f"{self.place}{key}.", fields=self._typed(key, dict, "an object", {}))

    def children(self, key: str) -> tuple[Object, ...]:
        items = self._typed(key, list, "a list", [])
        return tuple(self._item(f"{key}[{number}]", item) for number, item in enumerate(items))

    def texts(self, key: str) -> tuple[str, ...]:
        items = self._typed(key, list, "a list", [])
        for number, item in enumerate(items):
            if not isinstance(item, str):
                self.refuse(f"{key}[{number}]", f"expected text, found {item!r:.40}")
        return tuple(items)

    def text_map(self, key: str) -> dict[str, str]:
        entries = self._typed(key, dict, "an object", {})
        for name, value in entries.items():
            if not isinstance(value, str):
                self.refuse(f"{key}.{name:.100}", f"expected text, found {value!r:.40}")
        return dict(entries)

    def _item(self, key: str, item: object) -> Object:
        if not isinstance(item, dict):
            self.refuse(key, f"expected an object, found {item!r:.40}")
        return Object(place=f"{self.place}{key}.", fields=item)

    def _typed(self, key: str, kind: type[Any], noun: str, default: Any) -> Any:
        value = self.fields.get(key)
        if value is None:
            value = default
        if value is None:
            self.refuse(key, f"missing; expected {noun}")
        if not isinstance(value, kind):
            self.refuse(key, f"expected {noun}, found {value!r:.40}")
        return value


def parse(data: bytes, *, what: str) -> Object:
    """Read one JSON object; `what` names it in errors."""
    value = parse_any(data, what=what)
    if not isinstance(value, dict):
        raise errors.InvalidImage(f"{what}: expected a JSON object, found {type(value).__name__}")
    return Object(place=f"{what}: ", fields=value)


def parse_list(data: bytes, *, what: str) -> tuple[Object, ...]:
    """Read a JSON list of objects (the form of `manifest.json` in a `docker save` archive)."""
    value = parse_any(data, what=what)
    if not isinstance(value, list):
        raise errors.InvalidImage(f"{what}: expected a JSON list, found {type(value).__name__}")
    return Object(place=f"{what}: ", fields={"": value}).children("")


def parse_any(data: bytes, *, what: str) -> Any:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise errors.LimitExceeded(f"{what}: larger than {MAX_DOCUMENT_BYTES >> 20} MiB; such a document is refused")
    _check_depth(data, what)
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        if b"\\u" in data:
            dump(value)  # escapes can spell half a surrogate pair, which no other encoder would take
    except (ValueError, RecursionError) as error:
        raise errors.InvalidImage(f"{what}: not valid JSON: {error}") from error
    return value


def looks_like_one(path: Path) -> bool:
    """Whether a file may be a JSON object, by its size and its first byte."""
    with path.open("rb") as file:
        return file.read(1) == b"{" and os.fstat(file.fileno()).st_size <= MAX_DOCUMENT_BYTES


def read_bounded(path: Path) -> bytes:
    """At most one byte more than `parse` takes, so that `parse` can refuse it by name."""
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


def dump(value: object) -> bytes:
    """Canonical bytes: the same value has the same digest on every machine."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _check_depth(data: bytes, what: str) -> None:
    # Before the parser sees it: its own recursion bound depends on how deep the caller's stack already is.
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(data):
        token = match.group()[:1]
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise errors.LimitExceeded(f"{what}: nested deeper than {MAX_DEPTH}; such a document is refused")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r:.100} stands twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

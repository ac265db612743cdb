"""YAML that is read strictly: every complaint names the file, the line, the key and what would be right.

The rule: a key that is not known, one that stands twice, and a value of another kind are errors; a file that is taken
means what it says.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import yaml

from images.registry import errors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_BYTES = 1 << 20
_KINDS = ("int", "bool", "null", "map", "seq")
_INTEGER, _BOOLEAN, _NULL, _MAPPING, _SEQUENCE = (f"tag:yaml.org,2002:{kind}" for kind in _KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value and where it stands: `registries.yaml:7: registries.docker.io.mirrors`."""

    file: Path
    path: str
    node: yaml.Node

    def refuse(self, reason: str) -> NoReturn:
        line = self.node.start_mark.line + 1
        where = f"{self.file}:{line}: {self.path}: " if self.path else f"{self.file}:{line}: "
        raise errors.BadConfiguration(where + reason)

    def entries(self) -> dict[str, Value]:
        """A mapping from texts; nothing at all is an empty one."""
        if self.node.tag == _NULL:
            return {}
        if not isinstance(self.node, yaml.MappingNode) or self.node.tag != _MAPPING:
            self.refuse("expected keys and values")
        found: dict[str, Value] = {}
        for key, node in self.node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse("expected a text as key")
            value = Value(file=self.file, path=f"{self.path}.{key.value}" if self.path else key.value, node=node)
            if key.value in found:
                value.refuse("stands twice; keep one")
            found[key.value] = value
        return found

    def known(self, keys: Iterable[str]) -> dict[str, Value]:
        """A mapping that holds nothing but these keys."""
        entries, allowed = self.entries(), list(keys)
        for key, value in entries.items():
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(allowed)}"
                value.refuse(f"there is no such key; {hint}")
        return entries

    def items(self) -> tuple[Value, ...]:
        if not isinstance(self.node, yaml.SequenceNode) or self.node.tag != _SEQUENCE:
            self.refuse("expected a list")
        return tuple(
            Value(file=self.file, path=f"{self.path}[{number}]", node=node)
            for number, node in enumerate(self.node.value)
        )

    def text(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag == _NULL or not self.node.value:
            self.refuse("expected a text")
        return str(self.node.value)

    def flag(self) -> bool:
        if self.node.tag != _BOOLEAN or self.node.value not in {"true", "false"}:
            self.refuse("expected true or false")
        return bool(self.node.value == "true")

    def number(self, *, low: int, high: int) -> int:
        text = self.node.value if self.node.tag == _INTEGER else ""
        if not text.isdecimal() or not low <= int(text) <= high:
            self.refuse(f"expected a whole number from {low} to {high}")
        return int(text)


def read(path: Path) -> Value | None:
    """The document of a file; None for an empty one. `BadConfiguration` when it is no YAML or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise errors.BadConfiguration(f"{path}: {error.strerror}; name a file that can be read") from error
    if len(data) > MAX_BYTES:
        raise errors.BadConfiguration(f"{path}: larger than {MAX_BYTES >> 20} MiB; is it the right file?")
    try:
        node = _Loader(data).get_single_node()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise errors.BadConfiguration(f"{path}: not valid YAML: {' '.join(str(error).split()):.300}") from error
    return None if node is None else Value(file=path, path="", node=node)


class _Loader(yaml.SafeLoader):
    """Without aliases: one node in many places would have one line, and could be made to grow without end."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read here", self.get_mark())
        return super().compose_node(parent, index)

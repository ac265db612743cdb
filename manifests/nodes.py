"""The tree of a YAML document: texts, mappings and lists, each with the place where it was written.

Aliases and merges are resolved: a node that is named twice stands in two places of the tree.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from manifests.mistakes import Place
from manifests.paths import Path

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(slots=True, kw_only=True)
class Scalar:
    """`plain` is a scalar without quotes, which is where YAML would begin to guess."""

    place: Place
    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in _NULLS


@dataclass(slots=True, kw_only=True)
class Entry:
    """A key and its value; `place` is the key's."""

    place: Place
    value: "Node"


@dataclass(slots=True, kw_only=True)
class Mapping:
    """Entries in the order of the text, what was merged in (`<<`) last."""

    place: Place
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Items:
    """A list."""

    place: Place
    values: "list[Node]" = field(default_factory=list)


Node: TypeAlias = Scalar | Mapping | Items


def locate(node: Node, path: Path, *, at_key: bool = False) -> Place:
    """The place of the value (or the key) at a path; where the way there ends, the key of the last step found."""
    place = node.place
    for number, step in enumerate(path):
        if isinstance(node, Mapping) and isinstance(step, str) and step in node.entries:
            entry = node.entries[step]
            last = number == len(path) - 1
            # A mapping's own place is that of its first key; the key it hangs on is what people look for.
            said = last and not at_key and isinstance(entry.value, Scalar) and not entry.value.is_null
            node, place = entry.value, entry.value.place if said else entry.place
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.values):
            node = node.values[step]
            place = node.place
        else:
            return place
    return place


def what(node: Node) -> str:
    """What stands there, for `… instead of a mapping`."""
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else "a single value"
    return "a list" if isinstance(node, Items) else "a mapping"

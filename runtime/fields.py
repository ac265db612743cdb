"""Read one JSON object strictly: every field is taken by name and type, and what is left over is refused.

    fields = Fields(config, "")
    hostname = fields.text("hostname", default="")
    fields.finish()        # InvalidSpec: "hostnam: unknown field"

`null` counts as absent, since Go programs write it for empty lists.
"""

from collections.abc import Mapping
from typing import Any, Final

from runtime import errors

MAX_ITEMS: Final = 4096
"""The longest list that any field may hold."""


class Fields:
    """One object of the configuration, with the path that leads to it."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise errors.InvalidSpec(f"{path or 'config'}: must be an object, not {_kind(value)}")
        self._left: dict[str, Any] = {name: item for name, item in value.items() if item is not None}
        self.path = path

    def at(self, name: str) -> str:
        """The full path of a field of this object."""
        return f"{self.path}.{name}" if self.path else name

    def refuse(self, name: str, why: str) -> errors.InvalidSpec:
        """The refusal of a field, to be raised."""
        return errors.InvalidSpec(f"{self.at(name)}: {why}")

    def are(self, value: dict[str, Any]) -> bool:
        """Whether the object is equal to this one, and nothing is taken yet."""
        return self._left == value

    def left(self) -> dict[str, Any]:
        """What is not taken yet; it stays the object's."""
        return self._left

    def has(self, name: str) -> bool:
        """Whether the field is there and not taken yet."""
        return name in self._left

    def names(self) -> tuple[str, ...]:
        """The fields that are there and not taken yet: for an object whose keys are names that the caller gave."""
        return tuple(self._left)

    def text(self, name: str, *, default: str | None = None) -> str:
        """A string without NUL; required when it has no default."""
        value = self._take(name, str, default)
        if "\0" in value:
            raise self.refuse(name, "must not hold a NUL character")
        return str(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean."""
        return bool(self._take(name, bool, default))

    def number(self, name: str, *, low: int, high: int, default: int | None = None) -> int:
        """An integer between two bounds, both included."""
        value = int(self._take(name, int, default))
        if not low <= value <= high:
            raise self.refuse(name, f"must be between {low} and {high}, not {value}")
        return value

    def maybe_number(self, name: str, *, low: int, high: int) -> int | None:
        """An integer, or None when it is absent."""
        return self.number(name, low=low, high=high) if self.has(name) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; empty when it is absent."""
        items = self._list(name)
        for index, item in enumerate(items):
            if not isinstance(item, str) or "\0" in item:
                raise self.refuse(f"{name}[{index}]", "must be a string without NUL")
        return tuple(items)

    def numbers(self, name: str, *, low: int, high: int) -> tuple[int, ...]:
        """A list of integers between two bounds; empty when it is absent."""
        items = self._list(name)
        for index, item in enumerate(items):
            if type(item) is not int or not low <= item <= high:
                raise self.refuse(f"{name}[{index}]", f"must be an integer between {low} and {high}")
        return tuple(items)

    def mapping(self, name: str) -> dict[str, str]:
        """An object of strings; empty when it is absent."""
        value = self._take(name, dict, {})
        for key, item in value.items():
            if not isinstance(item, str):
                raise self.refuse(f"{name}[{key}]", f"must be a string, not {_kind(item)}")
        return dict(value)

    def child(self, name: str) -> "Fields":
        """A required object."""
        return Fields(self._take(name, dict, None), self.at(name))

    def maybe_child(self, name: str) -> "Fields | None":
        """An object, or None when it is absent."""
        return self.child(name) if self.has(name) else None

    def children(self, name: str) -> list["Fields"]:
        """A list of objects; empty when it is absent."""
        return [Fields(item, f"{self.at(name)}[{index}]") for index, item in enumerate(self._list(name))]

    def unsupported(self, *names: str) -> None:
        """Refuse fields that the specification has and this runtime does not, unless they say nothing."""
        for name in names:
            if _says_something(self._left.pop(name, None)):
                raise self.refuse(name, "this field is not supported by this runtime; remove it")

    def finish(self) -> None:
        """Refuse what was not taken."""
        for name in self._left:
            raise self.refuse(name, "unknown field; it is not in the OCI runtime specification for Linux")

    def _list(self, name: str) -> list[Any]:
        items = self._take(name, list, [])
        if len(items) > MAX_ITEMS:
            raise self.refuse(name, f"has {len(items)} items; {MAX_ITEMS} are the most")
        return list(items)

    def _take(self, name: str, kind: type, default: Any) -> Any:
        if name not in self._left:
            if default is None:
                raise self.refuse(name, "is required")
            return default
        value = self._left.pop(name)
        if type(value) is not kind:
            raise self.refuse(name, f"must be {_NAMES[kind]}, not {_kind(value)}")
        return value


def _says_something(value: Any) -> bool:
    """Whether anything is asked for: Docker writes `blockIO: {weight: 0}` for nothing at all."""
    if isinstance(value, Mapping):
        return any(_says_something(item) for item in value.values())
    return bool(value)


_NAMES: Final[dict[type, str]] = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    float: "a fraction",
    type(None): "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)

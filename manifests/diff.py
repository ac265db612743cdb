"""What changed between two versions of an object, in lines that people read: `spec.replicas: 3 → 5`.

What the system sets (`status`, ids, times) does not count: two objects without a difference here are the same wish.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from manifests import fields, paths, quoting
from manifests.paths import Path
from protos import schema, units
from protos.orch.v1 import objects_pb2 as pb

MAX_SHOWN = 80
"""Characters of a text on one side of the arrow."""

_CONFIDENTIAL = frozenset(
    {
        pb.Container.DESCRIPTOR.fields_by_name["env"].full_name,
        pb.HttpProbe.DESCRIPTOR.fields_by_name["headers"].full_name,
    }
)
"""Fields whose values may be passwords."""

_Change = tuple[Path, FieldDescriptor, str, str]
NONE = "(none)"


def changes(before: Message, after: Message) -> tuple[str, ...]:
    """One line for each field that differs, in the order of the protos. Empty when the two ask for the same."""
    return tuple(f"{paths.show(path)}: {old} → {new}" for path, _, old, new in _changes(before, after, ()))


def discreet_changes(before: Message, after: Message) -> tuple[str, ...]:
    """`changes` for what is kept and shown to others: of a value that may be a password, only where it is."""
    return tuple(
        paths.show(path) if field.full_name in _CONFIDENTIAL else f"{paths.show(path)}: {old} → {new}"
        for path, field, old, new in _changes(before, after, ())
    )


def differing_fields(before: Message, after: Message) -> Iterator[tuple[Path, FieldDescriptor]]:
    """The path and the field behind each line of `changes`."""
    return ((path, field) for path, field, _, _ in _changes(before, after, ()))


def _changes(before: Message, after: Message, path: Path) -> Iterator[_Change]:
    assert before.DESCRIPTOR is after.DESCRIPTOR, f"{before.DESCRIPTOR.name} and {after.DESCRIPTOR.name} differ in kind"
    for name, field in schema.fields_by_yaml_name(after.DESCRIPTOR).items():
        if schema.rules(field).system:
            continue
        here = (*path, name)
        old, new = _entries(before, field), _entries(after, field)
        for step in _steps(old, new):
            yield from _of_entry(field, old.get(step), new.get(step), (*here, *step))


def _entries(message: Message, field: FieldDescriptor) -> dict[Path, Any]:
    """The values of a field by their steps below it: `()` for a single one, `(key,)` or `(index,)` for several."""
    if not schema.has_value(message, field):
        return {}
    value = getattr(message, field.name)
    if schema.is_map(field):
        return {(key,): value[key] for key in sorted(value)}
    return {(index,): item for index, item in enumerate(value)} if schema.is_list(field) else {(): value}


def _steps(old: dict[Path, Any], new: dict[Path, Any]) -> list[Path]:
    return sorted(old.keys() | new.keys())


def _of_entry(field: FieldDescriptor, old: Any, new: Any, path: Path) -> Iterator[_Change]:
    inner = fields.nested(field)
    if inner is None:
        if old != new:
            yield path, field, _shown(field, old), _shown(field, new)
        return
    empty = type(new if old is None else old)()
    found = list(_changes(empty if old is None else old, empty if new is None else new, path))
    yield from found
    if not found and (old is None) != (new is None):
        # A message that appears with nothing in it.
        yield path, field, NONE if old is None else "{}", NONE if new is None else "{}"


def _shown(field: FieldDescriptor, value: Any) -> str:
    if value is None:
        return NONE
    scalar = fields.map_value(field) if schema.is_map(field) else field
    if scalar.enum_type is not None:
        return schema.enum_word(scalar.enum_type, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return units.format(schema.rules(field).unit, value)
    return quoting.shown(str(value), MAX_SHOWN)

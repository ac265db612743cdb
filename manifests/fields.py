"""What the reader, the rules and `explain` ask about fields beside what `protos.schema` answers."""

import functools
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from protos import schema, units
from protos.orch.v1 import options_pb2 as options

UNIT_NAMES = {
    options.UNIT_NONE: "a whole number",
    options.UNIT_BYTES: "a number of bytes like 64Mi",
    options.UNIT_CPU: "a number of processors like 0.5 or 500m",
    options.UNIT_DURATION: "a duration like 10s or 1m30s",
    options.UNIT_TIMESTAMP: "a moment like 2026-01-31T12:00:00Z",
}

MAX_DEPTH = 16
"""Of messages inside messages, should the schema ever become recursive."""


def map_value(field: FieldDescriptor) -> FieldDescriptor:
    """The field that describes a map's values. Keys are texts in every map of ours."""
    assert field.message_type is not None, f"{field.full_name} is not a map"
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    assert key.cpp_type == FieldDescriptor.CPPTYPE_STRING, f"{field.full_name}: the keys of maps are texts"
    return value


def nested(field: FieldDescriptor) -> Descriptor | None:
    """The message that the field, its items or its values hold; None when they are scalars."""
    return map_value(field).message_type if schema.is_map(field) else field.message_type


def in_short(field: FieldDescriptor) -> FieldDescriptor | None:
    """The field of its message whose value may stand for the whole message; None when there is none."""
    name = schema.rules(field).in_short
    return field.message_type.fields_by_name[name] if name and field.message_type is not None else None


@functools.cache
def paths(message: Descriptor) -> tuple[tuple[str, ...], ...]:
    """Every field that people write below a message, in the order of the protos: `("spec", "template", …)`."""
    return tuple(_paths(message, ()))


def _paths(message: Descriptor, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in message.fields:
        if schema.rules(field).system:
            continue
        path = (*above, schema.yaml_name(field))
        yield path
        if (inner := nested(field)) is not None and len(path) < MAX_DEPTH:
            yield from _paths(inner, path)


def minimum(field: FieldDescriptor) -> int | None:
    """The least value, as the integer that is stored."""
    rules = schema.rules(field)
    return units.parse(rules.unit, rules.min) if rules.min else None


def maximum(field: FieldDescriptor) -> int | None:
    """The greatest value, as the integer that is stored."""
    rules = schema.rules(field)
    return units.parse(rules.unit, rules.max) if rules.max else None

"""Objects as people read them: YAML that `read` reads back to the same object, and plain values for JSON.

Fields come in the order of the protos under their camelCase names; what says nothing is left out; quantities, moments
and enums are written as in a manifest. A text is quoted where any YAML (1.1 or 1.2) would take it for something else,
and stands as a block when it has several lines.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from manifests import fields, quoting
from protos import kinds, schema, units
from protos.orch.v1 import options_pb2 as options

Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value]"


class Quantity(str):
    """A number with a unit. Needs no quotes in a manifest: `cpu: 2`."""

    __slots__ = ()


def to_dict(value: kinds.StoredObject) -> dict[str, Value]:
    """The object as JSON would have it: `{"kind": "Service", "meta": {…}, …}`."""
    return {"kind": kinds.of(value).title, **_message(value)}


def to_yaml(value: kinds.StoredObject) -> str:
    """The object as one YAML document, without the `---` that goes between several."""
    return "".join(f"{line}\n" for line in _mapping(to_dict(value), ""))


# ------------------------------------------------------------------------------------------- messages to values


def _message(message: Message) -> dict[str, Value]:
    return {
        name: _field(field, getattr(message, field.name))
        for name, field in schema.fields_by_yaml_name(message.DESCRIPTOR).items()
        if schema.has_value(message, field)
    }


def _field(field: FieldDescriptor, value: Any) -> Value:
    if schema.is_map(field):
        values = fields.map_value(field)
        return {key: _single(values, value[key]) for key in sorted(value)}
    short = fields.in_short(field)
    if short is not None and [one for one, _ in value.ListFields()] == [short]:
        return _field(short, getattr(value, short.name))
    return [_single(field, item) for item in value] if schema.is_list(field) else _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Value:
    if field.message_type is not None:
        return _message(value)
    if field.enum_type is not None:
        return schema.enum_word(field.enum_type, value)
    unit = schema.rules(field).unit
    if unit == options.UNIT_TIMESTAMP:
        return units.format(unit, value)
    if unit:
        return Quantity(units.format(unit, value))
    assert isinstance(value, str | int | bool), f"{field.full_name}: manifests have no way yet to write this type"
    return value


# ------------------------------------------------------------------------------------------- values to lines

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.@+-]*(:[A-Za-z0-9_/.@+-]+)*|[A-Za-z]+( [A-Za-z]+)*", re.ASCII)
"""Texts that no YAML takes for anything but a text, unless they are one of `_TAKEN`."""

_TAKEN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
"""Words, in any case, that some YAML takes for something else."""

_BLOCK_LINE = re.compile("[\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*")
"""What a line of a block scalar may hold: it has no escapes."""


def _mapping(values: Mapping[str, Value], indent: str) -> Iterator[str]:
    for key, value in values.items():
        yield from _entry(f"{indent}{_text(key)}:", value, indent)


def _entry(head: str, value: Value, indent: str) -> Iterator[str]:
    """Lines of a value behind a key."""
    match value:
        case str() if (block := _block(value)) is not None:
            marker, *lines = block
            yield f"{head} {marker}"
            yield from (f"{indent}  {line}" if line else "" for line in lines)
        case str() | int():
            yield f"{head} {_scalar(value)}"
        case Mapping() if value:
            yield head
            yield from _mapping(value, indent + "  ")
        case Mapping():
            yield f"{head} {{}}"
        case _:
            yield head if value else f"{head} []"
            for item in value:
                yield from _item(item, indent + "  ")


def _item(value: Value, indent: str) -> Iterator[str]:
    """Lines of an item of a list. The first entry of a mapping stands behind the dash."""
    if isinstance(value, Mapping) and value:
        first, *rest = _mapping(value, indent + "  ")
        yield f"{indent}- {first[len(indent) + 2 :]}"
        yield from rest
    else:
        yield from _entry(f"{indent}-", value, indent)


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | Quantity) else _text(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _TAKEN:
        return text
    return quoting.quote(text)


def _block(text: str) -> list[str] | None:
    """A text of several lines as the marker and lines of a block; None when it cannot be one."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    # A block's indentation is that of its first line, and its last line end is said by the marker.
    if len(lines) < 2 or not lines[0] or not lines[-1] or lines[0][0] == " ":
        return None
    if not all(_BLOCK_LINE.fullmatch(line) and not line.endswith(" ") for line in lines):
        return None
    return ["|" if text.endswith("\n") else "|-", *lines]

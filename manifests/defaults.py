"""What holds where a manifest says nothing.

Stored specs stay as they were written; a Revision is made from a resolved copy, so that a default that changes with a
version of ours changes nothing that runs.

The rule: a field that has a default and no value gets the default. A message that is absent is made when something
inside it has a default, and nothing inside it, however deep, has to be said by a person; else leaving it out has a
meaning of its own. So a template without `restart` gets one with attempts 5, one without `container` stays without, and
a container without `probes` is not asked anything.
"""

import functools
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from manifests import fields
from protos import kinds, schema, units

AnyMessage = TypeVar("AnyMessage", bound=Message)


def resolve(message: AnyMessage) -> AnyMessage:
    """A copy with every default filled in."""
    copy = type(message)()
    copy.CopyFrom(message)
    _fill(copy)
    for kind in kinds.KINDS:
        if isinstance(copy, kind.message) and not kind.namespaced:
            copy.meta.ClearField("namespace")
    return copy


@functools.cache
def default(field: FieldDescriptor) -> int | str | bool | None:
    """The default of a field as the value that is stored; None when it has none."""
    text = schema.rules(field).default
    if not text:
        return None
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None, "an enum field has an enum"
            return schema.enum_words(field.enum_type)[text]
        case FieldDescriptor.CPPTYPE_STRING:
            return text
        case FieldDescriptor.CPPTYPE_BOOL:
            return text == "true"
        case _:
            return units.parse(schema.rules(field).unit, text)


def number(field: FieldDescriptor) -> int:
    """The default of a field that holds a number and has one, in the unit that is stored."""
    found = default(field)
    assert isinstance(found, int), f"{field.full_name} has no number as its default"
    return found


def _fill(message: Message) -> None:
    for field in schema.fields_by_yaml_name(message.DESCRIPTOR).values():
        if schema.rules(field).system:
            continue
        if fields.nested(field) is not None:
            _fill_inside(message, field)
        elif not schema.has_value(message, field) and (value := default(field)) is not None:
            setattr(message, field.name, value)


def _fill_inside(message: Message, field: FieldDescriptor) -> None:
    value: Any = getattr(message, field.name)
    if schema.is_map(field):
        for key in value:
            _fill(value[key])
    elif schema.is_list(field):
        for item in value:
            _fill(item)
    elif schema.has_value(message, field) or _made_when_absent(field):
        value.SetInParent()
        _fill(value)


def _made_when_absent(field: FieldDescriptor) -> bool:
    inner = field.message_type
    return inner is not None and field.containing_oneof is None and _has_default(inner) and not _asks(inner)


@functools.cache
def _has_default(message: Descriptor) -> bool:
    """Something in the message or in those inside it (lists and maps aside) has a default."""
    return any(
        default(field) is not None
        or (field.message_type is not None and not field.is_repeated and _has_default(field.message_type))
        for field in message.fields
        if not schema.rules(field).system
    )


@functools.cache
def _asks(message: Descriptor) -> bool:
    """Something in the message or in those inside it (lists and maps aside) is required."""
    return any(
        schema.rules(field).required
        or (field.message_type is not None and not field.is_repeated and _asks(field.message_type))
        for field in message.fields
    )

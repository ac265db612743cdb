"""Looking at the schema: the rules of a field, its name in manifests, the words of an enum, its documentation.

Everything that is generic over messages (the manifest reader, `-o yaml`, `explain`, defaults) asks here.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from protos.orch.v1 import options_pb2 as options


@functools.cache
def rules(field: FieldDescriptor) -> options.FieldRules:
    """The rules that the field carries; empty ones when it carries none."""
    return field.GetOptions().Extensions[options.rules]


def yaml_name(field: FieldDescriptor) -> str:
    """`stop_grace_period` → `stopGracePeriod`."""
    return field.json_name


@functools.cache
def fields_by_yaml_name(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    """The fields of a message by the name that manifests use."""
    return {yaml_name(field): field for field in message.fields}


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map (which protobuf stores as a list of pairs)."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_list(field: FieldDescriptor) -> bool:
    """Whether the field holds a list and not a map."""
    return field.is_repeated and not is_map(field)


@functools.cache
def enum_words(enum: EnumDescriptor) -> Mapping[str, int]:
    """The words that manifests use: `SERVICE_MODE_REPLICATED` → `replicated`. The UNSPECIFIED value has none."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    assert prefix != enum.values_by_number[0].name, f"{enum.full_name}: value 0 has to be …_UNSPECIFIED"
    return {
        value.name.removeprefix(prefix).lower().replace("_", "-"): value.number
        for value in enum.values
        if value.number != 0
    }


def enum_word(enum: EnumDescriptor, number: int) -> str:
    """The word of a value; its number when this version does not know it."""
    return next((word for word, value in enum_words(enum).items() if value == number), str(number))


def has_value(message: Message, field: FieldDescriptor) -> bool:
    """Whether the message says something in this field."""
    if field.is_repeated:
        return len(getattr(message, field.name)) > 0
    if field.has_presence:
        return message.HasField(field.name)
    return bool(getattr(message, field.name) != field.default_value)


@functools.cache
def _comments() -> Mapping[str, str]:
    text = (Path(__file__).parent / "orch/v1/comments.json").read_text()
    return cast("Mapping[str, str]", json.loads(text))


def comment(full_name: str) -> str:
    """What the protos say about a message, field, enum or value; empty when they say nothing."""
    return _comments().get(full_name, "")

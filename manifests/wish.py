"""What people say of an object, without what the system sets: what they edit, and what differences are shown of.

The rule: the wish of an object, applied again, changes nothing.
"""

import difflib
from collections.abc import Iterator

from google.protobuf.message import Message

from manifests import write
from protos import kinds, schema

CONTEXT_LINES = 3


def of(value: kinds.StoredObject) -> kinds.StoredObject:
    """A copy without the fields that the system sets."""
    copy = type(value)()
    copy.CopyFrom(value)  # type: ignore[arg-type]  # the same type
    _strip(copy)
    return copy


def text(value: kinds.StoredObject) -> str:
    """The wish as one YAML document."""
    return write.to_yaml(of(value))


def difference(before: kinds.StoredObject | None, after: kinds.StoredObject | None, name: str) -> tuple[str, ...]:
    """A unified diff of two wishes, line by line, under the object's name. Empty when they are the same.

    None on one side: the object is not there before, or will not be there after.
    """
    old, new = (text(value).splitlines() if value is not None else [] for value in (before, after))
    lines = difflib.unified_diff(old, new, f"{name} (now)", f"{name} (applied)", lineterm="", n=CONTEXT_LINES)
    return tuple(lines)


def _strip(message: Message) -> None:
    for field, value in message.ListFields():
        if schema.rules(field).system:
            message.ClearField(field.name)
        elif field.message_type is not None and not schema.is_map(field):
            for inner in value if schema.is_list(field) else [value]:
                _strip(inner)
        elif schema.is_map(field):
            for inner in _messages(value):
                _strip(inner)


def _messages(values: object) -> Iterator[Message]:
    """The values of a map, where they are messages."""
    assert hasattr(values, "values"), "a map"
    return (inner for inner in values.values() if isinstance(inner, Message))

"""Paths to single fields, as people type them: `meta.createdAt`, `status.ready`, `meta.labels.app`.

Behind a map everything up to the end is its key, so that keys with dots need no quotes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from manifests import fields, suggest
from orchctl.errors import InvalidInput
from protos import kinds, schema, units

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPath:
    """The way through messages to one value. `key` is that of a map, where the last field is one."""

    text: str
    steps: "tuple[FieldDescriptor, ...]"
    key: str = ""

    def value(self, of: Message) -> Any:
        """A number, a text or a truth; None where the object says nothing."""
        *above, last = self.steps
        for step in above:
            if not of.HasField(step.name):
                return None
            of = getattr(of, step.name)
        if self.key:
            return getattr(of, last.name).get(self.key)
        return getattr(of, last.name) if schema.has_value(of, last) else None

    def words(self, of: Message) -> str:
        """The value as manifests write it; empty where there is none."""
        value = self.value(of)
        field = fields.map_value(self.steps[-1]) if self.key else self.steps[-1]
        if value is None:
            return ""
        if field.enum_type is not None:
            return schema.enum_word(field.enum_type, value)
        if isinstance(value, bool):
            return "true" if value else "false"
        return units.format(schema.rules(field).unit, value) if isinstance(value, int) else str(value)

    @property
    def nothing(self) -> frozenset[str]:
        """The words for a field that says nothing: a number that is left out is 0."""
        field = self.steps[-1]
        if self.key or field.enum_type is not None or field.cpp_type == field.CPPTYPE_STRING:
            return frozenset({""})
        return frozenset({"", "false"} if field.cpp_type == field.CPPTYPE_BOOL else {"", "0", "0s"})


def parse(kind: kinds.Kind, text: str) -> FieldPath:
    """The field of a kind that a path names. InvalidInput with the nearest name."""
    message: Descriptor | None = kind.message.DESCRIPTOR
    steps: list[FieldDescriptor] = []
    words = text.split(".")
    for number, word in enumerate(words):
        known = schema.fields_by_yaml_name(message) if message is not None else {}
        if word not in known:
            _refuse(kind, text, word, list(known))
        field = known[word]
        steps.append(field)
        if schema.is_map(field) and fields.map_value(field).message_type is None and number + 1 < len(words):
            return FieldPath(text=text, steps=tuple(steps), key=".".join(words[number + 1 :]))
        message = None if field.is_repeated else field.message_type
    if steps[-1].is_repeated or steps[-1].message_type is not None:
        raise InvalidInput(
            f"{text} of a {kind.name} is not one value", hint=f"see `orchctl explain {kind.name}.{text}`"
        )
    return FieldPath(text=text, steps=tuple(steps))


def _refuse(kind: kinds.Kind, text: str, word: str, known: list[str]) -> None:
    hint = suggest.did_you_mean(word, known) or f"see `orchctl explain {kind.name}`"
    raise InvalidInput(f"a {kind.name} has no field {text}", hint=hint)

"""The reference documentation, from the schema itself: `explain("service.spec.template.container")`.

Comments of the protos say what a field means; its type and rules say how it is written. Nothing is written twice.
"""

import textwrap
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from manifests import fields, quoting, suggest
from protos import kinds, schema

WIDTH = 100


class UnknownPath(ValueError):  # noqa: N818 - what it is
    """There is no such kind or field; `hint` says which one is near."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


def explain(path: str = "") -> str:
    """What the schema says about a kind or a field of it; an empty path lists the kinds. Raises UnknownPath."""
    if not path:
        return "\n".join(_kinds()) + "\n"
    name, *steps = path.split(".")
    kind = kinds.by_name(name.lower())
    if kind is None:
        known = [kind.name for kind in kinds.KINDS]
        raise UnknownPath(
            f"no kind {quoting.shown(name)}", suggest.did_you_mean(name, known) or f"kinds are {', '.join(known)}"
        )
    descriptor: Descriptor = kind.message.DESCRIPTOR
    return "\n".join(_page(kind.name, descriptor, steps)) + "\n"


def _kinds() -> Iterator[str]:
    for kind in kinds.KINDS:
        yield kind.name if kind.written_by_people else f"{kind.name} (made by the system)"
        yield from _wrapped(schema.comment(kind.message.DESCRIPTOR.full_name), "  ")


def _page(path: str, message: Descriptor, steps: list[str]) -> Iterator[str]:
    """Walks down to the last step and describes what is there."""
    field: FieldDescriptor | None = None
    inner: Descriptor | None = message
    for step in steps:
        field = _step(path, inner, step)
        path = f"{path}.{schema.yaml_name(field)}"
        inner = fields.nested(field)
    yield from _wrapped(f"{path}: {_type(field)}" if field is not None else path, "", hanging="    ")
    yield from _wrapped(schema.comment(field.full_name) if field is not None else "", "  ")
    if inner is not None:
        yield from _wrapped(schema.comment(inner.full_name), "  ")
        yield ""
        for child in inner.fields:
            yield from _described(child)
    elif field is not None and (enum := _scalar(field).enum_type) is not None:
        yield ""
        for word, number in schema.enum_words(enum).items():
            yield f"  {word}"
            yield from _wrapped(schema.comment(f"{enum.full_name}.{enum.values_by_number[number].name}"), "      ")


def _step(path: str, message: Descriptor | None, step: str) -> FieldDescriptor:
    if message is None:
        raise UnknownPath(f"{path} has no fields", "leave out what follows")
    known = schema.fields_by_yaml_name(message)
    if step not in known:
        hint = suggest.did_you_mean(step, known) or f"known are {', '.join(known)}"
        raise UnknownPath(f"{path} has no field {quoting.shown(step)}", hint)
    return known[step]


def _described(field: FieldDescriptor) -> Iterator[str]:
    yield from _wrapped(f"{schema.yaml_name(field)}: {_type(field)}", "  ", hanging="    ")
    yield from _wrapped(schema.comment(field.full_name), "      ")


def _type(field: FieldDescriptor) -> str:
    """How the field is written: its type, then its rules."""
    return ", ".join([_shape(field), *_rules(field)])


def _shape(field: FieldDescriptor) -> str:
    one = _one(_scalar(field))
    if schema.is_map(field):
        return f"mapping of names to {one}"
    return f"list of {one}" if schema.is_list(field) else one


def _scalar(field: FieldDescriptor) -> FieldDescriptor:
    return fields.map_value(field) if schema.is_map(field) else field


def _one(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        short = fields.in_short(field)
        return field.message_type.name + (f" or {_one(short)}" if short is not None else "")
    if field.enum_type is not None:
        return suggest.one_of(schema.enum_words(field.enum_type))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true or false"
    return "text" if field.type == FieldDescriptor.TYPE_STRING else fields.UNIT_NAMES[schema.rules(field).unit]


def _rules(field: FieldDescriptor) -> Iterator[str]:
    rules = schema.rules(field)
    if rules.system:
        yield "set by the system"
    if rules.required:
        yield "required"
    if rules.default:
        yield f"default {rules.default}"
    if rules.min:
        yield f"at least {rules.min}"
    if rules.max:
        yield f"at most {rules.max}"
    if rules.max_items:
        yield f"at most {rules.max_items} {'entries' if field.is_repeated else 'characters'}"
    if rules.pattern_hint:
        yield rules.pattern_hint
    if rules.file:
        yield "or the path of a file that holds it"
    if rules.immutable:
        yield "cannot be changed"


def _wrapped(text: str, indent: str, *, hanging: str = "") -> list[str]:
    after = indent + hanging
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=after, break_on_hyphens=False)

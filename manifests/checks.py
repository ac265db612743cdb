"""The rules that every field carries in the schema, checked over any message: required, bounds, patterns, sizes.

What a descriptor asks for is worked out once a field and kept, so that checking costs little more than a walk.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from manifests import fields, files, quoting, suggest
from manifests.paths import Path
from manifests.problems import Problem
from protos import schema, units
from protos.orch.v1 import options_pb2 as options

_HOUR_MS = 3_600_000
MAX_TEXT_BYTES = 131_071
"""Of any text: the longest argument or variable that Linux hands to a program (MAX_ARG_STRLEN, execve(2))."""
MAX_ITEMS = 10_000
"""Of a list or a map that has no bound of its own."""
MAX_OBJECT_BYTES = 2**20
"""Of a stored object: etcd refuses requests over 1.5 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """What one field is held to."""

    field: FieldDescriptor
    name: str
    yaml_name: str
    required: bool
    unit: units.Unit
    least: int | None
    most: int | None
    pattern: re.Pattern[str] | None
    pattern_hint: str
    max_items: int
    nested: Descriptor | None
    enum: EnumDescriptor | None
    is_map: bool
    is_list: bool
    is_text: bool
    may_be_file: bool

    @property
    def has_bounds(self) -> bool:
        return self.least is not None or self.most is not None


@functools.cache
def _checks(message: Descriptor) -> Sequence[_Check]:
    return [_check(field) for field in message.fields if not schema.rules(field).system]


def _check(field: FieldDescriptor) -> _Check:
    rules = schema.rules(field)
    value = fields.map_value(field) if schema.is_map(field) else field
    return _Check(
        field=field,
        name=field.name,
        yaml_name=schema.yaml_name(field),
        required=rules.required,
        unit=rules.unit,
        least=fields.minimum(field),
        most=fields.maximum(field),
        pattern=re.compile(rules.pattern) if rules.pattern else None,
        pattern_hint=rules.pattern_hint,
        max_items=rules.max_items,
        nested=value.message_type,
        enum=value.enum_type,
        is_map=schema.is_map(field),
        is_list=schema.is_list(field),
        is_text=value.type == FieldDescriptor.TYPE_STRING,
        may_be_file=rules.file,
    )


def walk(message: Message, path: Path = ()) -> Iterator[tuple[Message, Path]]:
    """A message and every message inside it that people write, each with its path, in the order of the protos."""
    yield message, path
    for check in _checks(message.DESCRIPTOR):
        if check.nested is not None and schema.has_value(message, check.field):
            for inner, inner_path in _inside(check, getattr(message, check.name), (*path, check.yaml_name)):
                yield from walk(inner, inner_path)


def problems(message: Message, path: Path = ()) -> Iterator[Problem]:
    """What the schema has against the fields of this one message, without the messages inside it."""
    for check in _checks(message.DESCRIPTOR):
        here = (*path, check.yaml_name)
        if schema.has_value(message, check.field):
            yield from _of_value(check, getattr(message, check.name), here)
        elif check.required:
            yield Problem(keys=here, message="missing")


def refusal_of_zero(field: FieldDescriptor) -> str:
    """Why 0 cannot be written in a field that has no way to store it; empty when it can, and means nothing."""
    least = fields.minimum(field)
    if least is None or least <= 0:
        return ""
    return f"0 is too small, the least is {schema.rules(field).min}"


def _inside(check: _Check, value: Any, path: Path) -> Iterator[tuple[Message, Path]]:
    """The messages that a field holds."""
    if check.is_map:
        yield from ((value[key], (*path, key)) for key in sorted(value))
    elif check.is_list:
        yield from ((item, (*path, index)) for index, item in enumerate(value))
    else:
        yield value, path


def _of_value(check: _Check, value: Any, path: Path) -> Iterator[Problem]:
    """Problems of a field's value, or of each item or entry of it."""
    if not check.field.is_repeated:
        yield from _of_scalar(check, value, path)
    elif len(value) > (most := check.max_items or MAX_ITEMS):
        yield Problem(keys=path, message=f"{len(value)} entries, at most {most} are allowed")
    elif check.is_map:
        for key in sorted(value):
            yield from _of_text(check, key, (*path, key), at_key=True)
            yield from _of_scalar(check, value[key], (*path, key))
    else:
        for index, item in enumerate(value):
            yield from _of_scalar(check, item, (*path, index))


def _of_scalar(check: _Check, value: Any, path: Path) -> Iterator[Problem]:
    if check.is_text:
        yield from _of_text(check, value, path)
    elif check.enum is not None and value not in check.enum.values_by_number:
        words = suggest.one_of(schema.enum_words(check.enum))
        yield Problem(keys=path, message=f"{value} is not a value that is known here", hint=f"known are {words}")
    elif check.has_bounds:
        yield from _of_number(check, value, path)


def _of_number(check: _Check, value: int, path: Path) -> Iterator[Problem]:
    for bound, is_beyond, words in (
        (check.least, check.least is not None and value < check.least, "too small, the least"),
        (check.most, check.most is not None and value > check.most, "too big, the most"),
    ):
        if bound is not None and is_beyond:
            shown, limit = (_number(check.unit, number) for number in (value, bound))
            yield Problem(keys=path, message=f"{shown} is {words} is {limit}")


def _number(unit: units.Unit, value: int) -> str:
    """As it would be written; of days the hours, too: 90000h → `3750d (90000h)`, as somebody wrote it."""
    shown = units.format(unit, value)
    if unit != options.UNIT_DURATION or "d" not in shown:
        return shown
    hours, rest_ms = divmod(value, _HOUR_MS)
    return f"{shown} ({hours}h{units.format_duration(rest_ms) if rest_ms else ''})"


def _of_text(check: _Check, text: str, path: Path, *, at_key: bool = False) -> Iterator[Problem]:
    if "\0" in text:
        yield Problem(keys=path, message="a text cannot hold a NUL character", at_key=at_key)
    elif len(text) > MAX_TEXT_BYTES // 4 and len(text.encode()) > MAX_TEXT_BYTES:
        yield Problem(keys=path, message=f"longer than {MAX_TEXT_BYTES} bytes", hint="shorten it", at_key=at_key)
    elif check.field.is_repeated:
        return
    elif check.max_items and len(text) > check.max_items:
        yield Problem(keys=path, message=f"{len(text)} characters, at most {check.max_items} are allowed")
    elif check.may_be_file and files.is_path(text):
        message = "is the path of a file, and an object has to hold what is in it"
        yield Problem(keys=path, message=message, hint="apply the manifest with `orchctl apply`, which reads the file")
    elif check.pattern is not None and not check.pattern.fullmatch(text):
        yield Problem(keys=path, message=f"{quoting.shown(text)} is not allowed", hint=f"write {check.pattern_hint}")

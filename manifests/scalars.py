"""One scalar as its field wants it. The type of the field decides what the text means, never its looks.

| field | taken | refused, with the remedy |
|---|---|---|
| text | what was written, quoted or not: `no` is "no", `0777` is "0777", `1e3` is "1e3" | |
| number | `12`, `-3` | `1_000`, `0777`, `0x1F`, `1e3`, `1.0`, `"12"` |
| bytes, cpu, duration, moment | `64Mi`, `0.5`, `"10s"` | `010`, `1_000`, a duration without a unit |
| true or false | `true`, `false` | `yes`, `on`, `True`, `1`, `"true"` |
| one of several words | the word, quoted or not, in any case, with or without `-`: `clientIP` | another spelling |
"""

import re
from collections.abc import Callable, Mapping

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from manifests import fields, quoting, suggest
from manifests.nodes import Scalar
from protos import schema, units

_INTEGERS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
"""What each type of number holds."""

MAX_NUMBER = 64
"""Characters. Nobody writes a longer number, and converting one costs the square of its length."""

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_OTHER_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"-?[0-9]{1,3}(_[0-9]{1,3}){1,6}", re.ASCII), lambda text: text.replace("_", "")),
    (re.compile(r"0x[0-9a-fA-F]{1,16}", re.ASCII), lambda text: str(int(text, 16))),
    (re.compile(r"0o[0-7]{1,21}", re.ASCII), lambda text: str(int(text, 8))),
    (re.compile(r"0b[01]{1,64}", re.ASCII), lambda text: str(int(text, 2))),
    (re.compile(r"[0-9]{1,9}\.0{1,9}", re.ASCII), lambda text: text.partition(".")[0]),
    (re.compile(r"[1-9][0-9]{0,3}[eE]\+?[0-9]", re.ASCII), lambda text: str(int(float(text)))),
)
"""Ways to write a number that YAML versions read differently, and what each most likely means."""

_NOT_SUPPORTED = frozenset({("orch.v1.Protocol", "sctp")})
"""Words that are right elsewhere."""

_OCTAL_OR_NOT = re.compile(r"0[0-9]+", re.ASCII)
_TRUE = frozenset({"true", "yes", "on", "y", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "0"})


class Unreadable(ValueError):  # noqa: N818 - the scalar is
    """The scalar cannot be what the field wants."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def read(field: FieldDescriptor, scalar: Scalar) -> str | int | bool:
    """The value of a scalar for a field (or for an item or a value of it). Raises Unreadable."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return scalar.text
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _boolean(scalar)
    if field.enum_type is not None:
        return _enum(field.enum_type, scalar)
    if field.cpp_type in _INTEGERS:
        return _number(field, scalar)
    raise AssertionError(f"{field.full_name}: manifests have no way yet to write this type")


def wanted(field: FieldDescriptor) -> str:
    """What a scalar of the field is, in words that follow `expected`."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return "a text"
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true or false"
    if field.enum_type is not None:
        return suggest.one_of(schema.enum_words(field.enum_type))
    return fields.UNIT_NAMES[schema.rules(field).unit]


def _boolean(scalar: Scalar) -> bool:
    if scalar.plain and scalar.text in {"true", "false"}:
        return scalar.text == "true"
    word = scalar.text.lower()
    if word in _TRUE | _FALSE:
        meant = "true" if word in _TRUE else "false"
        raise Unreadable(f"{quoting.shown(scalar.text)} is not true or false", f"write {meant}, without quotes")
    raise Unreadable(f"{quoting.shown(scalar.text)} is not true or false")


def _enum(enum: EnumDescriptor, scalar: Scalar) -> int:
    words = schema.enum_words(enum)
    for word, number in words.items():
        if suggest.same(scalar.text, word):
            return number
    if (enum.full_name, scalar.text.lower()) in _NOT_SUPPORTED:
        raise Unreadable(f"{scalar.text.upper()} is not supported", f"write {suggest.one_of(words)}")
    bare = scalar.text.removeprefix(enum.values_by_number[0].name.removesuffix("UNSPECIFIED"))
    hint = suggest.did_you_mean(bare, words) or f"write {suggest.one_of(words)}"
    raise Unreadable(f"{quoting.shown(scalar.text)} is not a known word", hint)


def _number(field: FieldDescriptor, scalar: Scalar) -> int:
    unit = schema.rules(field).unit
    if len(scalar.text) > MAX_NUMBER:
        shown = quoting.shown(scalar.text)
        if scalar.plain and not unit and _WHOLE.fullmatch(scalar.text):
            raise _too_small(field, shown) if scalar.text[0] == "-" else _too_big(field, shown)
        raise Unreadable(f"{shown} is not {fields.UNIT_NAMES[unit]}")
    try:
        value = _quantity(unit, scalar) if unit else _plain_number(scalar)
    except units.TooBig as error:
        raise _too_big(field, scalar.text) from error
    least, most = _INTEGERS[field.cpp_type]
    if value < least:
        raise _too_small(field, scalar.text)
    if value > most:
        raise _too_big(field, scalar.text)
    return value


def _too_small(field: FieldDescriptor, text: str) -> Unreadable:
    """Of what the type does not hold, too, the field's own bound is told: else the next mistake would be that one."""
    rules, (least, _) = schema.rules(field), _INTEGERS[field.cpp_type]
    return Unreadable(f"{text} is too small", f"the least is {rules.min or units.format(rules.unit, least)}")


def _too_big(field: FieldDescriptor, text: str) -> Unreadable:
    rules, (_, most) = schema.rules(field), _INTEGERS[field.cpp_type]
    return Unreadable(f"{text} is too big", f"the most is {rules.max or units.format(rules.unit, most)}")


def _quantity(unit: units.Unit, scalar: Scalar) -> int:
    _refuse_leading_zero(scalar)
    try:
        return units.parse(unit, scalar.text)
    except units.TooBig:
        raise
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        raise Unreadable(message, hint) from error


def _plain_number(scalar: Scalar) -> int:
    if not scalar.plain:
        raise Unreadable(
            f"{quoting.shown(scalar.text)} is a text, not a whole number", "write the number without quotes"
        )
    if _WHOLE.fullmatch(scalar.text):
        return int(scalar.text)
    _refuse_leading_zero(scalar)
    for pattern, meant in _OTHER_NUMBERS:
        if pattern.fullmatch(scalar.text):
            raise Unreadable(f"{scalar.text} is not written as a plain whole number", f"write {meant(scalar.text)}")
    raise Unreadable(f"{quoting.shown(scalar.text)} is not a whole number")


def _refuse_leading_zero(scalar: Scalar) -> None:
    """YAML 1.1 reads 0777 as octal, YAML 1.2 as decimal; nobody can tell which one was meant."""
    if _OCTAL_OR_NOT.fullmatch(scalar.text):
        decimal = scalar.text.lstrip("0") or "0"
        octal = f", or {int(scalar.text, 8)} if it is octal" if re.fullmatch("[0-7]{1,21}", scalar.text) else ""
        raise Unreadable(f"{scalar.text} begins with a zero", f"write {decimal}{octal}")

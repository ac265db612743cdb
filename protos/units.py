"""Quantities as people write them, and the integers that they stand for.

Bytes (`64Mi`), thousandths of a processor (`500m`, `0.5`), milliseconds (`1m30s`) and moments (RFC 3339). Every
`parse` raises ValueError with a sentence that shows a right example (TooBig of what is merely too much); every `format`
is read back to the same number.
"""

import functools
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from protos.orch.v1 import options_pb2 as options

    Unit: TypeAlias = options.Unit.ValueType
else:
    Unit = int

INT64_MAX = 2**63 - 1


class TooBig(ValueError):  # noqa: N818 - what the number is
    """It can be read, and is more than can be stored."""


_BYTE_UNITS = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
_BINARY = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki")
_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)([a-zA-Z]{0,2})", re.ASCII)

_DURATION_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_bytes(text: str) -> int:
    """`64Mi` → 67108864. A trailing `B` (`64MiB`, `10MB`) is understood."""
    match = _QUANTITY.fullmatch(text.removesuffix("B"))
    unit = _BYTE_UNITS.get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"not a number of bytes: {text!r}; write it like 64Mi, 1.5Gi or 500k")
    return _whole(Decimal(match[1]) * unit, text, "bytes")


def format_bytes(value: int) -> str:
    """67108864 → `64Mi`; a number that no unit divides is written in full."""
    for unit in _BINARY:
        size = _BYTE_UNITS[unit]
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def about_bytes(value: int) -> str:
    """25007988736 → `23.3Gi`: for sentences, where the last byte does not matter."""
    for unit in _BINARY:
        size = _BYTE_UNITS[unit]
        if value >= size:
            return f"{value / size:.1f}".removesuffix(".0") + unit
    return str(value)


def parse_cpu(text: str) -> int:
    """`500m` → 500, `0.5` → 500, `2` → 2000."""
    number, factor = (text[:-1], 1) if text.endswith("m") else (text, 1000)
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,6})?", number, re.ASCII):
        raise ValueError(f"not a number of processors: {text!r}; write it like 0.5, 2 or 500m")
    return _whole(Decimal(number) * factor, text, "thousandths of a processor")


def format_cpu(value: int) -> str:
    """500 → `500m`, 2000 → `2`."""
    return str(value // 1000) if value % 1000 == 0 else f"{value}m"


def parse_duration(text: str) -> int:
    """`1m30s` → 90000 (milliseconds). `0` needs no unit."""
    if text == "0":
        return 0
    parts = list(_DURATION.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"not a duration: {text!r}; write it like 10s, 1m30s or 250ms")
    return _whole(
        sum((Decimal(part[1]) * _DURATION_UNITS[part[2]] for part in parts), Decimal(0)), text, "milliseconds"
    )


def format_duration(value: int) -> str:
    """90000 → `1m30s`."""
    if value == 0:
        return "0s"
    parts = []
    for unit, size in _DURATION_UNITS.items():
        count, value = divmod(value, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_timestamp(text: str) -> int:
    """RFC 3339 → milliseconds since 1970."""
    example = f"not a moment: {text!r}; write it like 2026-01-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(example) from error
    if moment.tzinfo is None:
        raise ValueError(example)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def format_timestamp(value: int) -> str:
    """Milliseconds since 1970 → `2026-01-31T12:00:00.000Z`."""
    return (_EPOCH + timedelta(milliseconds=value)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole(value: Decimal, text: str, what: str) -> int:
    refusal = f"{text!r} is not a whole number of {what} that fits in 63 bits"
    if value > INT64_MAX:
        raise TooBig(refusal)
    try:
        whole = int(value.to_integral_exact())
    except InvalidOperation:
        whole = -1
    if whole < 0 or whole != value:
        raise ValueError(refusal)
    return whole


@functools.cache
def _kinds() -> "Mapping[Unit, tuple[Callable[[str], int], Callable[[int], str]]]":
    """How each unit is read and written. The schema is loaded when somebody asks: who reads a number of a command line
    does without.
    """
    from protos.orch.v1 import options_pb2 as options

    return {
        options.UNIT_BYTES: (parse_bytes, format_bytes),
        options.UNIT_CPU: (parse_cpu, format_cpu),
        options.UNIT_DURATION: (parse_duration, format_duration),
        options.UNIT_TIMESTAMP: (parse_timestamp, format_timestamp),
    }


def parse(unit: "Unit", text: str) -> int:
    """The integer that `text` stands for in `unit`. ValueError with an example when it cannot be read."""
    if unit in _kinds():
        return _kinds()[unit][0](text)
    if not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII):
        raise ValueError(f"not a whole number: {text!r}")
    return int(text)


def format(unit: "Unit", value: int) -> str:  # noqa: A001 - `units.format` is what callers read
    """The shortest text that `parse` reads back to `value`."""
    return _kinds()[unit][1](value) if unit in _kinds() else str(value)

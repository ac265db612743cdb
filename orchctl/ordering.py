"""`--sort-by`: rows in the order of a column (`AGE`) or of a field (`meta.createdAt`); with `-` before it, reversed.

Columns sort as people read them: `web-9` before `web-10`, `900Mi` before `1.2Gi`, the young before the old. What says
nothing comes last.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from orchctl import fieldpaths, tables
from orchctl.errors import InvalidInput
from protos import kinds

Key: TypeAlias = Callable[[kinds.StoredObject], Any]


def sort(
    values: Sequence[kinds.StoredObject], kind: kinds.Kind, by: str, view: tables.View
) -> list[kinds.StoredObject]:
    """The values in another order. InvalidInput when there is no such column and no such field."""
    name, descending = by.removeprefix("-"), by.startswith("-")
    if not name:
        raise InvalidInput("--sort-by needs a column or a field", hint="such as AGE, or -meta.createdAt")
    key = _of_column(kind, name, view) or _of_field(kind, name)
    keyed = [(key(value), value) for value in values]
    known = [pair for pair in keyed if pair[0] is not None]
    known.sort(key=operator.itemgetter(0), reverse=descending)
    return [value for _, value in known] + [value for place, value in keyed if place is None]


def _of_column(kind: kinds.Kind, name: str, view: tables.View) -> Key | None:
    shown = tables.columns(kind, wide=True, with_namespace=True)
    column = next((column for column in shown if column.title.lower() == name.lower()), None)
    if column is None:
        return None
    return column.order or (lambda value: _natural(column.cell(value, view)) or None)


def _of_field(kind: kinds.Kind, name: str) -> Key:
    if "." not in name:
        titles = [column.title for column in tables.columns(kind, wide=True, with_namespace=True)]
        raise InvalidInput(
            f"{kind.name}s have no column {name}",
            hint=f"columns are {', '.join(titles)}; or a field like meta.createdAt",
        )
    path = fieldpaths.parse(kind, name)
    return path.value


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers by their value, everything else letter by letter: `web-10` → web-, 10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts)

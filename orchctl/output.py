"""`-o`: objects as a table, as YAML that can be applied again, as JSON, or as names."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click

from manifests import write
from orchctl import tables, terminal, words
from protos import kinds

T = TypeVar("T")

FORMATS = ("wide", "json", "yaml", "name")
STRUCTURED = frozenset({"json", "yaml", "name"})
_JSON_SPECIAL = str.maketrans({code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)})


def option(function: Callable[..., T]) -> Callable[..., T]:
    """Adds `-o`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(FORMATS),
        help="Another form than the table: more columns, JSON, YAML, or names only.",
    )(function)


def documents_option(function: Callable[..., T]) -> Callable[..., T]:
    """Adds `-o` where there is a page for people, and the same for programs."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(("json", "yaml")), help="The same for programs: JSON or YAML."
    )(function)


def structured(values: Sequence[kinds.StoredObject], form: str, *, as_list: bool) -> str:
    """The objects in one of the STRUCTURED forms. JSON is a list, or the one object that was asked for by name."""
    if form == "name":
        return "\n".join(words.short(value) for value in values)
    if form == "yaml":
        return yaml(values)
    documents = [write.to_dict(value) for value in values]
    return as_json(documents if as_list or len(documents) != 1 else documents[0])


def yaml(values: Iterable[kinds.StoredObject]) -> str:
    """YAML documents, one an object."""
    return "---\n".join(write.to_yaml(value) for value in values).rstrip("\n")


def as_json(value: object, *, indent: int | None = 2) -> str:
    """JSON in which control characters are escaped, so that a terminal is shown the same text as a pipe."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_JSON_SPECIAL)


def as_yaml(value: object) -> str:
    """Any plain value as YAML, keys in the order in which they are."""
    import yaml as writer

    return writer.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")


def item(value: kinds.StoredObject, form: str) -> str:
    """One object as one item of a stream: a line of JSON, a YAML document, a name."""
    if form == "json":
        return as_json(write.to_dict(value), indent=None)
    return structured([value], form, as_list=False) + ("\n---" if form == "yaml" else "")


def print_table(
    values: Sequence[kinds.StoredObject],
    shown: Sequence[tables.Column[kinds.StoredObject]],
    view: tables.View,
    *,
    wide: bool,
) -> None:
    """A row for each object. The last column ends at the edge of the terminal, unless the table is a wide one."""
    limit = terminal.size().columns if terminal.is_terminal() and not wide else 0
    rows = [tables.row(value, shown, view) for value in values]
    print_lines(tables.table([column.title for column in shown], rows, limit=limit))


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        terminal.say(line)

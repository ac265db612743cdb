"""`get -w` and `events -w`: what is there, then a row for each change, until Ctrl-C.

The columns are as wide as the first rows need. Changes are shown in the order in which they come.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from orchctl import client, errors, options, output, queries, tables, terminal
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub

DELETED = "deleted"


def print_changes(
    settings: options.Settings,
    kind: kinds.Kind,
    selections: Sequence[control.ListRequest],
    takes: Callable[[kinds.StoredObject, bool], bool],
    form: str,
) -> None:
    """Prints until it is interrupted. Unreachable when the control plane ends the stream.

    `takes` is told of an object, and whether it has gone; it says whether that is shown.
    """
    with client.connect(settings.server) as stub:
        printer: _Printer = (
            _Items(form) if form in output.STRUCTURED else _Rows(stub, kind, form, settings.all_namespaces)
        )
        first: list[kinds.StoredObject] | None = []
        for event in stub.Watch(control.WatchRequest(selections=selections)):
            which = event.WhichOneof("event")
            if which == "synced":
                if first is not None:
                    printer.begin(sorted(first, key=tables.sort_key))
                first = None
            elif which is not None:
                value = kinds.unwrap(event.changed if which == "changed" else event.deleted)
                if not takes(value, which == "deleted"):
                    continue
                if first is not None:
                    first.append(value)
                else:
                    printer.change(value, deleted=which == "deleted")
            sys.stdout.flush()
    raise errors.Unreachable(f"the control plane at {settings.server} ended the watch", hint="run it again")


class _Printer(Protocol):
    def begin(self, values: Sequence[kinds.StoredObject]) -> None:
        """Prints what is there at the start."""

    def change(self, value: kinds.StoredObject, *, deleted: bool) -> None:
        """Prints an object that has changed, or that has gone."""


class _Items:
    """JSON lines, YAML documents or names. One that has gone is not printed: these forms cannot say so."""

    def __init__(self, form: str) -> None:
        self._form = form

    def begin(self, values: Sequence[kinds.StoredObject]) -> None:
        for value in values:
            self.change(value, deleted=False)

    def change(self, value: kinds.StoredObject, *, deleted: bool) -> None:
        if not deleted:
            terminal.data(output.item(value, self._form))


class _Rows:
    """Rows of a table. That of an object that has gone says so in its last column."""

    def __init__(self, stub: "ControlStub", kind: kinds.Kind, form: str, all_namespaces: bool) -> None:
        self._stub = stub
        self._kind = kind
        self._columns = tables.columns(kind, wide=form == "wide", with_namespace=all_namespaces)
        self._widths: list[int] = []
        self._view = self._fresh_view()

    def begin(self, values: Sequence[kinds.StoredObject]) -> None:
        titles = [column.title for column in self._columns]
        rows = [tables.row(value, self._columns, self._view) for value in values]
        self._widths = tables.widths([titles, *rows])
        for cells in (titles, *rows):
            terminal.say(tables.line(cells, self._widths))

    def change(self, value: kinds.StoredObject, *, deleted: bool) -> None:
        if isinstance(value, pb.Task) and value.node_id and value.node_id not in self._view.node_names:
            self._view = self._fresh_view()
        view = dataclasses.replace(self._view, now_ms=terminal.now_ms())
        cells = tables.row(value, self._columns, view)
        terminal.say(tables.line([*cells[:-1], DELETED if deleted else cells[-1]], self._widths))

    def _fresh_view(self) -> tables.View:
        return queries.view(self._stub, {self._kind.name}, terminal.now_ms())

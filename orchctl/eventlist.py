"""Lists of events: which are meant, and how they are printed, at once or as they come."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchctl import options, output, phrases, queries, tables, terminal
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which of the selected events are shown: those that happened since then, of this type; empty: of any."""

    since_ms: int = 0
    type: str = ""

    def takes(self, event: pb.Event) -> bool:
        return event.status.last_seen >= self.since_ms and self.type in {"", phrases.event_type(event)}


def selections(settings: options.Settings, about: tuple[kinds.Kind, str] | None) -> list[control.ListRequest]:
    """About one object; else of a namespace and of the cluster as a whole; else all."""
    if about is not None:
        kind, name = about
        return [queries.events_about(kind, name, settings.namespace if kind.namespaced else "")]
    if settings.all_namespaces:
        return [control.ListRequest(kind="event")]
    return [
        control.ListRequest(kind="event", namespace=namespace)
        for namespace in (settings.namespace, kinds.CLUSTER_NAMESPACE)
    ]


def show(stub: "ControlStub", selected: Sequence[control.ListRequest], wanted: Wanted, form: str) -> None:
    """Prints what is there."""
    found = [value for selection in selected for value in queries.objects(stub, selection)]
    events = sorted(
        (value for value in found if isinstance(value, pb.Event) and wanted.takes(value)), key=tables.sort_key
    )
    if form in output.STRUCTURED:
        if events or form == "json":
            terminal.data(output.structured(events, form, as_list=True))
    elif events:
        columns = _columns(form)
        rows = [tables.row(event, columns, _view()) for event in events]
        limit = terminal.size().columns if terminal.is_terminal() and form != "wide" else 0
        output.print_lines(tables.table([column.title for column in columns], rows, limit=limit))
    else:
        terminal.note("no events")


def follow(stub: "ControlStub", selected: Sequence[control.ListRequest], wanted: Wanted, form: str) -> None:
    """Prints what is there, then each event as it comes or is counted again. Returns when the stream ends."""
    printer = _Printer(form)
    first: list[pb.Event] | None = []
    for response in stub.Watch(control.WatchRequest(selections=selected)):
        match response.WhichOneof("event"):
            case "synced":
                printer.begin(sorted(first or [], key=tables.sort_key))
                first = None
            case "changed" if wanted.takes(response.changed.event):
                if first is not None:
                    first.append(response.changed.event)
                else:
                    printer.line(response.changed.event)
            case _:
                pass  # what is cleared away is no news
        sys.stdout.flush()


class _Printer:
    """Rows as wide as the first ones need, or one of the forms for programs."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._shown = _columns(form)
        self._widths: list[int] = []

    def begin(self, events: Sequence[pb.Event]) -> None:
        if self._form in output.STRUCTURED:
            for event in events:
                self.line(event)
            return
        titles = [column.title for column in self._shown]
        rows = [tables.row(event, self._shown, _view()) for event in events]
        self._widths = tables.widths([titles, *rows])
        for cells in (titles, *rows):
            terminal.say(tables.line(cells, self._widths))

    def line(self, event: pb.Event) -> None:
        if self._form in output.STRUCTURED:
            terminal.data(output.item(event, self._form))
        else:
            terminal.say(tables.line(tables.row(event, self._shown, _view()), self._widths))


def _columns(form: str) -> Sequence[tables.Column[kinds.StoredObject]]:
    kind = kinds.by_name("event")
    assert kind is not None, "events are a kind"
    return tables.columns(kind, wide=form == "wide", with_namespace=False)


def _view() -> tables.View:
    return tables.View(now_ms=terminal.now_ms())

"""Lists of events: which are meant, and how they are printed, at once or as they come."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchctl import client, options, output, phrases, queries, tables, terminal, watching, words
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb


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


def show(settings: options.Settings, selected: Sequence[control.ListRequest], wanted: Wanted, form: str) -> None:
    """Prints what is there."""
    with client.connect(settings.server) as stub:
        found = [value for selection in selected for value in queries.objects(stub, selection)]
    events = sorted((value for value in found if _is_wanted(value, wanted)), key=tables.sort_key)
    if form in output.STRUCTURED:
        if events or form == "json":
            terminal.data(output.structured(events, form, as_list=True))
    elif events:
        wide = form == "wide"
        shown = tables.columns(words.kind("event"), wide=wide, with_namespace=settings.all_namespaces)
        output.print_table(events, shown, tables.View(now_ms=terminal.now_ms()), wide=wide)
    else:
        terminal.note("no events")


def follow(settings: options.Settings, selected: Sequence[control.ListRequest], wanted: Wanted, form: str) -> None:
    """Prints what is there, then each event as it comes or is counted again. What is cleared away is no news."""
    watching.print_changes(
        settings, words.kind("event"), selected, lambda value, gone: not gone and _is_wanted(value, wanted), form
    )


def _is_wanted(value: kinds.StoredObject, wanted: Wanted) -> bool:
    return isinstance(value, pb.Event) and wanted.takes(value)

"""`orchctl get`: objects as a table, or in the forms of `-o`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from orchctl import client, complete, errors, options, ordering, output, queries, tables, terminal, watching, words
from protos import kinds
from protos.orch.v1 import control_pb2 as control

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What was asked for. `what` is a kind and perhaps names, or `all`."""

    what: tuple[str, ...]
    form: str = ""
    watch: bool = False
    selectors: tuple[str, ...] = ()
    service: str = ""
    node: str = ""
    sort_by: str = ""
    show_labels: bool = False


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND [NAME…]", shell_complete=complete.kind_then_names)
@output.option
@click.option("-w", "--watch", is_flag=True, help="Go on with a row for each change.")
@options.selector
@click.option("--service", default="", metavar="NAME", help="Only tasks and revisions of this service.")
@click.option("--node", default="", metavar="NAME", help="Only tasks on this node.")
@click.option(
    "--sort-by",
    default="",
    metavar="FIELD",
    help="A column, or a field like meta.createdAt; - before it turns the order round.",
    shell_complete=complete.columns,
)
@click.option("--audit", is_flag=True, help="With events: who changed what, or was refused. For admins.")
@click.option("--show-labels", is_flag=True, help="Show the labels in a column of their own.")
@options.all_namespaces
@options.with_settings
def command(
    settings: options.Settings,
    what: tuple[str, ...],
    form: str | None,
    watch: bool,
    selectors: tuple[str, ...],
    service: str,
    node: str,
    sort_by: str,
    show_labels: bool,
    audit: bool,
) -> None:
    """List objects: service (svc), task, node, revision, image, network (net), endpoints (ep), event (ev).

    `all` is services and tasks.

    \b
    Examples:
      orchctl get services
      orchctl get tasks --service hello -o wide
      orchctl get service hello -o yaml
      orchctl get services -l 'tier in (front, back)' --show-labels
      orchctl get tasks --sort-by -RESTARTS
      orchctl get tasks -w
    """
    if audit:
        _show_audit(settings, what)
        return
    query = Query(
        what=what,
        form=form or "",
        watch=watch,
        selectors=selectors,
        service=service,
        node=node,
        sort_by=sort_by,
        show_labels=show_labels,
    )
    show(settings, query)


def _show_audit(settings: options.Settings, what: Sequence[str]) -> None:
    if len(what) != 1 or words.kind(what[0]).name != "event":
        raise errors.InvalidInput("--audit goes with events", hint="write it like `orchctl get events --audit`")
    from orchctl import membership

    membership.show_audit(settings, 0)


def show(settings: options.Settings, query: Query) -> None:
    """Prints what the query asks for."""
    selected, names = _selected(query.what)
    selections = [_selection(settings, query, kind) for kind in selected]
    if not query.watch:
        with client.connect(settings.server) as stub:
            _get(stub, settings, selections, names, query)
    elif query.sort_by or query.show_labels:
        raise errors.InvalidInput("changes are shown as they come", hint="leave out --sort-by and --show-labels, or -w")
    elif len(selections) == 1:
        watching.print_changes(settings, selected[0], selections, lambda value, _: _is_named(value, names), query.form)
    else:
        raise errors.InvalidInput("one kind at a time can be watched", hint="such as `orchctl get tasks -w`")


def _selected(what: Sequence[str]) -> tuple[list[kinds.Kind], list[str]]:
    """The kinds and the names that are meant."""
    if what[0].lower() == words.ALL:
        if len(what) > 1:
            raise errors.InvalidInput("`all` takes no names")
        return [words.kind(name) for name in words.IN_ALL], []
    if "/" in what[0]:
        pairs = words.split_references(what)
        if len({kind.name for kind, _ in pairs}) != 1:
            raise errors.InvalidInput("objects of one kind at a time", hint="or `orchctl get all`")
        return [pairs[0][0]], [name for _, name in pairs]
    selected = [words.kind(word) for word in what[0].split(",")]
    return selected, [words.meant(selected[0], name) for name in what[1:]]


def _selection(settings: options.Settings, query: Query, kind: kinds.Kind) -> control.ListRequest:
    everywhere = settings.all_namespaces or not kind.namespaced
    return control.ListRequest(
        kind=kind.name,
        namespace="" if everywhere else settings.namespace,
        service=query.service,
        node=query.node,
        selector=",".join(query.selectors),
    )


def _get(
    stub: "ControlStub",
    settings: options.Settings,
    selections: Sequence[control.ListRequest],
    names: Sequence[str],
    query: Query,
) -> None:
    found = [_named(queries.objects(stub, selection), names) for selection in selections]
    groups = [values for values in found if values]
    # What is beside the objects has to be asked for: only rows show it, and are sorted by it.
    needed = query.sort_by or query.form not in output.STRUCTURED
    beside = {kinds.of(values[0]).name for values in groups} if needed else ()
    view = queries.view(stub, beside, terminal.now_ms())
    if query.sort_by:
        groups = [ordering.sort(values, kinds.of(values[0]), query.sort_by, view) for values in groups]
    together = [value for values in groups for value in values]
    if query.form not in output.STRUCTURED:
        _print_tables(settings, groups, query, view)
    elif together or query.form == "json":
        terminal.data(output.structured(together, query.form, as_list=len(names) != 1))
    _tell_missing(settings, selections, names, together)


def _named(values: Sequence[kinds.StoredObject], names: Sequence[str]) -> list[kinds.StoredObject]:
    return [value for value in values if _is_named(value, names)]


def _is_named(value: kinds.StoredObject, names: Sequence[str]) -> bool:
    """Whether the object goes by one of the names; where there are none, every object does."""
    return not names or any(words.named(value, name) for name in names)


def _print_tables(
    settings: options.Settings, groups: Sequence[Sequence[kinds.StoredObject]], query: Query, view: tables.View
) -> None:
    """A table for each kind of which there is something, with an empty line between."""
    for number, values in enumerate(groups):
        if number:
            terminal.say()
        wide = query.form == "wide"
        shown = [*tables.columns(kinds.of(values[0]), wide=wide, with_namespace=settings.all_namespaces)]
        shown += [tables.LABELS] if query.show_labels else []
        output.print_table(values, shown, view, wide=wide)


def _tell_missing(
    settings: options.Settings,
    selections: Sequence[control.ListRequest],
    names: Sequence[str],
    found: Sequence[kinds.StoredObject],
) -> None:
    """Objects that were named have to be there; an empty list is no mistake, but is told."""
    namespaced = any(words.kind(selection.kind).namespaced for selection in selections)
    where = f" in namespace {settings.namespace}" if namespaced and not settings.all_namespaces else ""
    missing = [name for name in names if not any(words.named(value, name) for value in found)]
    if missing:
        kind = " or ".join(selection.kind for selection in selections)
        hint = f"tasks of a service: `orchctl get tasks --service {missing[0]}`" if kind == "task" else ""
        raise errors.NotFound(f"there is no {kind} {', '.join(map(repr, missing))}{where}", hint=hint)
    if not found:
        terminal.note(f"no {' and no '.join(words.plural(words.kind(one.kind)) for one in selections)}{where}")

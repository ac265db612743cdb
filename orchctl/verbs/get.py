"""`orchctl get`: objects as a table, or in the forms of `-o`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchctl import client, complete, errors, options, output, queries, tables, terminal, watching, words
from protos import kinds
from protos.orch.v1 import control_pb2 as control

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND [NAME…]", shell_complete=complete.kind_then_names)
@output.option
@click.option("-w", "--watch", is_flag=True, help="Go on with a row for each change.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Only objects with this label.")
@click.option("--service", default="", metavar="NAME", help="Only tasks and revisions of this service.")
@click.option("--node", default="", metavar="NAME", help="Only tasks on this node.")
@options.all_namespaces
@options.with_settings
def command(
    settings: options.Settings,
    what: tuple[str, ...],
    form: str | None,
    watch: bool,
    labels: tuple[str, ...],
    service: str,
    node: str,
) -> None:
    """List objects: service (svc), task, node, revision, image; `all` is services and tasks.

    \b
    Examples:
      orchctl get services
      orchctl get tasks --service hello -o wide
      orchctl get service hello -o yaml
      orchctl get tasks -w
    """
    selected, names = _selection(what)
    everywhere = settings.all_namespaces
    selections = [
        control.ListRequest(
            kind=kind.name,
            namespace="" if everywhere or not kind.namespaced else settings.namespace,
            service=service,
            node=node,
            labels=parse_labels(labels),
        )
        for kind in selected
    ]
    if not watch:
        with client.connect(settings.server) as stub:
            _get(stub, settings, selections, names, form or "")
    elif len(selections) == 1:
        watching.print_changes(settings, selected[0], selections[0], names, form or "")
    else:
        raise errors.InvalidInput("one kind at a time can be watched", hint="such as `orchctl get tasks -w`")


def _get(
    stub: "ControlStub",
    settings: options.Settings,
    selections: Sequence[control.ListRequest],
    names: Sequence[str],
    form: str,
) -> None:
    found = [_named(queries.objects(stub, selection), names) for selection in selections]
    together = [value for values in found for value in values]
    if form not in output.STRUCTURED:
        _print_tables(stub, settings, found, form)
    elif together or form == "json":
        terminal.say(output.structured(together, form, as_list=len(names) != 1))
    missing = [name for name in names if not any(words.named(value, name) for value in together)]
    if missing:
        raise errors.NotFound(
            f"there is no {_what(selections, 'or')} {', '.join(missing)}{_where(settings, selections)}"
        )
    if not together:
        terminal.note(f"no {_what(selections, 'and no', plural=True)}{_where(settings, selections)}")


def _print_tables(
    stub: "ControlStub",
    settings: options.Settings,
    found: Sequence[Sequence[kinds.StoredObject]],
    form: str,
) -> None:
    """A table for each kind of which there is something, with an empty line between."""
    groups = [values for values in found if values]
    view = queries.view(stub, {kinds.of(values[0]).name for values in groups}, terminal.now_ms())
    for number, values in enumerate(groups):
        if number:
            terminal.say()
        kind = kinds.of(values[0])
        shown = tables.columns(kind, wide=form == "wide", with_namespace=settings.all_namespaces)
        titles = [column.title for column in shown]
        rows = [tables.row(value, shown, view) for value in values]
        limit = terminal.size().columns if terminal.is_terminal() and form != "wide" else 0
        output.print_lines(tables.table(titles, rows, limit=limit))


def _selection(what: Sequence[str]) -> tuple[list[kinds.Kind], list[str]]:
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
    if "," in what[0]:
        return [words.kind(word) for word in what[0].split(",")], list(what[1:])
    return [words.kind(what[0])], list(what[1:])


def _named(values: Sequence[kinds.StoredObject], names: Sequence[str]) -> list[kinds.StoredObject]:
    return [value for value in values if not names or any(words.named(value, name) for name in names)]


def parse_labels(pairs: Sequence[str]) -> dict[str, str]:
    """`app=web` → the labels. InvalidInput when one has no `=`."""
    labels = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not key or not sign:
            raise errors.InvalidInput(f"not a label: {pair!r}", hint="write it like app=web")
        labels[key] = value
    return labels


def _what(selections: Sequence[control.ListRequest], joined: str, *, plural: bool = False) -> str:
    return f" {joined} ".join(f"{selection.kind}{'s' if plural else ''}" for selection in selections)


def _where(settings: options.Settings, selections: Sequence[control.ListRequest]) -> str:
    namespaced = any(words.kind(selection.kind).namespaced for selection in selections)
    return f" in namespace {settings.namespace}" if namespaced and not settings.all_namespaces else ""

"""`orchctl describe`: everything about one object on one page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchctl import (
    client,
    complete,
    last_words,
    network_pages,
    options,
    output,
    pages,
    queries,
    tables,
    terminal,
    words,
)
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


MAX_EVENTS = 10
"""The last ones that a page shows; `orchctl events --for` shows all."""


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="KIND NAME…", shell_complete=complete.kind_then_names)
@options.with_settings
def command(settings: options.Settings, what: tuple[str, ...]) -> None:
    """Show objects in full: a service with its tasks and revisions, a task with why it waits, a node with its tasks.

    \b
    Examples:
      orchctl describe service hello
      orchctl describe task hello-1-k7x2m9q4
      orchctl describe node n1
    """
    show(settings, what)


def show(settings: options.Settings, what: Sequence[str]) -> None:
    """Prints a page for each object, with an empty line between."""
    with client.connect(settings.server) as stub:
        for number, (kind, name) in enumerate(words.split_references(what)):
            if number:
                terminal.say()
            namespace = settings.namespace if kind.namespaced else ""
            value = queries.find(stub, kind, name, namespace)
            output.print_lines([*_page(settings.server, stub, value), *_events(stub, value)])


def _page(server: str, stub: "ControlStub", value: kinds.StoredObject) -> list[str]:
    view = queries.view(stub, {"task"}, terminal.now_ms())
    namespace = value.meta.namespace
    match value:
        case pb.Service():
            tasks = control.ListRequest(kind="task", namespace=namespace, service=value.meta.name)
            revisions = control.ListRequest(kind="revision", namespace=namespace, service=value.meta.name)
            mine = _tasks(stub, tasks)
            return pages.service(value, mine, _revisions(stub, revisions), view, last_words.of_crashing(server, mine))
        case pb.Node():
            return pages.node(value, _tasks(stub, control.ListRequest(kind="task", node=value.meta.id)), view)
        case pb.Task():
            revisions = control.ListRequest(kind="revision", namespace=namespace, service=value.service)
            known = [each for each in _revisions(stub, revisions) if each.meta.id == value.revision_id]
            words_ = last_words.of(server, value) if last_words.are_worth_telling(value) else ()
            return pages.task(value, known[0] if known else None, view, words_)
        case pb.Revision():
            return pages.revision(value, view)
        case pb.Image():
            return pages.image(value, view)
        case pb.Network():
            return network_pages.network(value, queries.endpoints(stub), view)
        case pb.Endpoints():
            return network_pages.endpoints(value, view)
        case pb.Event():
            return pages.event(value, view)
        case pb.Cluster():
            return network_pages.cluster(value, view)


def _events(stub: "ControlStub", value: kinds.StoredObject) -> list[str]:
    """The last ones about an object, if it is one that events are about."""
    if isinstance(value, pb.Event | pb.Endpoints | pb.Revision):
        return []
    view = tables.View(now_ms=terminal.now_ms())
    return pages.section("Events", pages.events(queries.events(stub, value)[-MAX_EVENTS:], view))


def _tasks(stub: "ControlStub", selection: control.ListRequest) -> list[pb.Task]:
    return [value for value in queries.objects(stub, selection) if isinstance(value, pb.Task)]


def _revisions(stub: "ControlStub", selection: control.ListRequest) -> list[pb.Revision]:
    return [value for value in queries.objects(stub, selection) if isinstance(value, pb.Revision)]

"""`orchctl delete`: the end of objects, and everything that they own."""

from collections.abc import Iterable

import click

from manifests import dependencies
from orchctl import client, complete, errors, options, terminal, waiting, words
from orchctl.progress import Target
from orchctl.verbs import apply
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb


@click.command()
@click.argument("what", nargs=-1, metavar="[KIND NAME…]", shell_complete=complete.kind_then_names)
@options.files("Delete what these manifests name.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no mistake.")
@options.detach
@options.timeout
@options.with_settings
def command(
    settings: options.Settings,
    what: tuple[str, ...],
    paths: tuple[str, ...],
    ignore_not_found: bool,
    detach: bool,
    timeout_ms: int,
) -> None:
    """Delete objects, then wait until they have gone. A service stops its tasks first.

    \b
    Examples:
      orchctl delete service hello
      orchctl delete service/hello service/web
      orchctl delete -f hello.yaml
    """
    if bool(what) == bool(paths):
        raise errors.InvalidInput("name objects, or files with -f", hint="such as `orchctl delete service hello`")
    references = _in_files(paths, settings) if paths else _named(what, settings)
    going, missing = [], []
    with client.connect(settings.server) as stub:
        for reference in references:
            try:
                request = control.DeleteRequest(reference=reference)
                with client.translated(settings.server):
                    response = stub.Delete(request, timeout=client.CALL_TIMEOUT_S)
            except errors.NotFound as error:
                missing.append(error)
                continue
            going.append(Target.of(kinds.unwrap(response.object)))
            if detach:
                terminal.say(f"{reference.kind}/{reference.name} is being deleted")
    if not detach:
        waiting.until_gone(settings.server, going, timeout_ms)
    if missing and not ignore_not_found:
        details = [terminal.one_line(error.message) for error in missing[:-1]]
        raise errors.NotFound(missing[-1].message, hint=missing[-1].hint, details=details)


def _named(what: tuple[str, ...], settings: options.Settings) -> Iterable[control.ObjectReference]:
    return [_reference(kind, name, settings.namespace) for kind, name in words.split_references(what)]


def _in_files(paths: tuple[str, ...], settings: options.Settings) -> Iterable[control.ObjectReference]:
    """In the reverse order of the files, because what came last may need what came first; networks after all others.

    Services name networks, whichever of the files comes first; and what they depend on is asked to go after them, so
    that it is there until they have ended.
    """
    objects = list(reversed(apply.read(paths, settings)))
    services = [value for value in objects if isinstance(value, pb.Service)]
    graph = dependencies.graph_of(services)
    order = dependencies.dependents_first(map(kinds.qualified, services), graph)
    places = {key: place for place, key in enumerate(order)}
    objects.sort(
        key=lambda value: (
            kinds.of(value).name == "network",
            places[kinds.qualified(value)] if isinstance(value, pb.Service) else len(places),
        )
    )
    return [_reference(kinds.of(value), value.meta.name, value.meta.namespace) for value in objects]


def _reference(kind: kinds.Kind, name: str, namespace: str) -> control.ObjectReference:
    return control.ObjectReference(kind=kind.name, namespace=namespace if kind.namespaced else "", name=name)

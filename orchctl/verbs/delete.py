"""`orchctl delete`: the end of objects, and everything that they own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchctl import client, complete, dependents, errors, options, queries, terminal, waiting, words
from orchctl.progress import Target
from orchctl.verbs import apply
from protos import kinds
from protos.orch.v1 import control_pb2 as control

if TYPE_CHECKING:
    from protos.orch.v1.control_pb2_grpc import ControlStub


@click.command()
@click.argument("what", nargs=-1, metavar="[KIND [NAME…]]", shell_complete=complete.kind_then_names)
@options.files("Delete what these manifests name.")
@options.selector
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no mistake.")
@options.detach
@options.timeout
@options.with_settings
def command(
    settings: options.Settings,
    what: tuple[str, ...],
    paths: tuple[str, ...],
    selectors: tuple[str, ...],
    ignore_not_found: bool,
    detach: bool,
    timeout_ms: int,
) -> None:
    """Delete objects, then wait until they have gone. A service stops its tasks first, and goes before those that it
    depends on.

    \b
    Examples:
      orchctl delete service hello
      orchctl delete service/hello service/web
      orchctl delete services -l app=shop
      orchctl delete -f hello.yaml
    """
    if bool(what) == bool(paths) or (selectors and not what):
        raise errors.InvalidInput("name objects, or files with -f", hint="such as `orchctl delete service hello`")
    going, missing = [], []
    with client.connect(settings.server) as stub:
        for reference in _in_order(stub, _meant(stub, settings, what, paths, selectors)):
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


def _meant(
    stub: "ControlStub",
    settings: options.Settings,
    what: tuple[str, ...],
    paths: tuple[str, ...],
    selectors: tuple[str, ...],
) -> list[control.ObjectReference]:
    """What is to go: of files in their reverse order, because what came last may need what came first."""
    if paths:
        return [_reference_to(value) for value in reversed(apply.read(paths, settings))]
    if selectors:
        return _selected(stub, settings, what, ",".join(selectors))
    return [_reference(kind, name, settings.namespace) for kind, name in words.split_references(what)]


def _selected(
    stub: "ControlStub", settings: options.Settings, what: tuple[str, ...], selector: str
) -> list[control.ObjectReference]:
    """Those of a kind, in this namespace, whose labels fit."""
    if len(what) != 1 or "/" in what[0]:
        raise errors.InvalidInput(
            "a selector chooses among the objects of one kind, without names",
            hint="such as `orchctl delete services -l app=shop`",
        )
    kind = words.kind(what[0])
    namespace = settings.namespace if kind.namespaced else ""
    found = queries.objects(stub, control.ListRequest(kind=kind.name, namespace=namespace, selector=selector))
    if not found:
        terminal.note(f"no {kind.name} fits {selector!r}")
    return [_reference_to(value) for value in found]


def _in_order(stub: "ControlStub", references: Sequence[control.ObjectReference]) -> list[control.ObjectReference]:
    """Services before those that they depend on, which are there until they have ended; networks last of all."""
    services = [one for one in references if one.kind == "service"]
    order = [(one.namespace, one.name) for one in dependents.first(stub, services)]
    places = {key: place for place, key in enumerate(order)}
    last = len(places)
    return sorted(references, key=lambda one: (one.kind == "network", places.get((one.namespace, one.name), last)))


def _reference_to(value: kinds.StoredObject) -> control.ObjectReference:
    return _reference(kinds.of(value), value.meta.name, value.meta.namespace)


def _reference(kind: kinds.Kind, name: str, namespace: str) -> control.ObjectReference:
    return control.ObjectReference(kind=kind.name, namespace=namespace if kind.namespaced else "", name=name)

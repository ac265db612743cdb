"""`orchctl apply`: manifests to the control plane, then wait until they are so."""

from collections.abc import Sequence
from pathlib import Path

import click

from manifests import reader
from orchctl import (
    amounts,
    client,
    differences,
    errors,
    options,
    output,
    planned,
    pruning,
    sources,
    stores,
    terminal,
    waiting,
    words,
)
from orchctl.progress import Target
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

_ACTIONS = {
    control.APPLY_ACTION_CREATED: "created",
    control.APPLY_ACTION_CHANGED: "changed",
    control.APPLY_ACTION_UNCHANGED: "unchanged",
    control.APPLY_ACTION_PRUNED: "pruned",
}


@click.command()
@options.files("A file, a folder, or - .", required=True)
@click.option("--dry-run", is_flag=True, help="Check and show what would change; change nothing.")
@click.option("--stack", default="", metavar="NAME", help="The stack that these objects belong to.")
@click.option(
    "--prune", is_flag=True, help="Delete the services and networks of the stack that are not in these files."
)
@click.option("--yes", is_flag=True, help="Do not ask before something is pruned.")
@click.option("--force", is_flag=True, help="Apply also what was exported before somebody else changed the object.")
@click.option("--push", is_flag=True, help="Send images of this machine first that the cluster has not, or otherwise.")
@options.detach
@options.timeout
@options.with_store_path
@options.with_settings
def command(
    settings: options.Settings,
    store: Path,
    paths: tuple[str, ...],
    dry_run: bool,
    stack: str,
    prune: bool,
    yes: bool,
    force: bool,
    push: bool,
    detach: bool,
    timeout_ms: int,
) -> None:
    """Make or change what the manifests describe, then wait until everything is as asked.

    All objects of all files are checked first; one mistake, and nothing is changed. What is equal already is left
    alone. A manifest that holds meta.version, as `get -o yaml` prints it, is refused when somebody else has changed the
    object since; --force applies it all the same. Ctrl-C ends the waiting, not the change.

    \b
    Examples:
      orchctl apply -f hello.yaml
      orchctl apply -f shop/ -f extra.yaml --detach
      orchctl apply -f shop/ --stack shop --prune
      orchctl apply -f - --dry-run < hello.yaml
      orchctl image build -t web . && orchctl apply -f web.yaml --push
    """
    objects = read(paths, settings, versions=True)
    if not objects:
        raise errors.InvalidInput("there is no object in these files")
    request = control.ApplyRequest(
        objects=map(kinds.wrap, objects), dry_run=dry_run, force=force, stack=stack, prune=prune
    )
    if push and not dry_run:
        _push(settings, store, objects)
    try:
        response = _apply(settings.server, request, yes=yes)
    except errors.InvalidInput as refusal:
        from orchctl import localimages

        raise localimages.explained(refusal, settings.server, store, objects) from refusal
    for result in response.results:
        _print(result, dry_run=dry_run)
    output.print_lines(planned.page(response.placements, response.unplanned))
    if not dry_run and not detach:
        waiting.until_settled(settings.server, _targets(response), timeout_ms)
        waiting.until_gone(settings.server, _pruned(response), timeout_ms)


def _apply(server: str, request: control.ApplyRequest, *, yes: bool) -> control.ApplyResponse:
    """A dry run is answered by the leader, which knows what nodes have of the images."""

    def ask(address: str) -> control.ApplyResponse:
        with client.connect(address) as stub:
            if request.prune and not request.dry_run:
                request.agreed.extend(pruning.agree(stub, request, yes=yes))
            return stub.Apply(request, timeout=client.APPLY_TIMEOUT_S)

    return client.near_leader(server, ask) if request.dry_run else ask(server)


def _push(settings: options.Settings, folder: Path, objects: Sequence[kinds.StoredObject]) -> None:
    from orchctl import localimages

    with stores.told():
        for image in localimages.push(settings.server, folder, objects):
            terminal.say(f"image/{image.meta.name} pushed ({amounts.digest(image.status.digest)})")


def read(
    paths: tuple[str, ...], settings: options.Settings, *, versions: bool = False
) -> tuple[kinds.StoredObject, ...]:
    """The objects of the files. InvalidInput with every mistake, a line each.

    `versions`: with the version that an exported manifest was made from.
    """
    try:
        manifest = reader.read(sources.read(paths), namespace=settings.namespace, load=sources.load)
    except reader.InvalidManifest as error:
        count = len(error.mistakes)
        raise errors.InvalidInput(
            f"{count} mistakes; nothing was changed" if count > 1 else "a mistake; nothing was changed",
            details=[str(mistake) for mistake in error.mistakes],
        ) from error
    if versions:
        for written in manifest.written:
            written.object.meta.version, written.object.meta.generation = written.made_from
    said = settings.namespace_option
    for value in manifest.objects:
        if said and kinds.of(value).namespaced and value.meta.namespace != said:
            raise errors.InvalidInput(
                f"{kinds.label(value)} says its own namespace, which is not {said!r}",
                hint="leave out --namespace, or the namespace in the manifest",
            )
    return manifest.objects


def _print(result: control.ApplyResult, *, dry_run: bool) -> None:
    action = _ACTIONS.get(result.action, "applied")
    terminal.say(f"{words.short(kinds.unwrap(result.object))} {action}{' (dry run)' if dry_run else ''}")
    if dry_run:
        differences.show(result)
    else:
        for change in result.changes:
            terminal.say(f"  {change}")
    for warning in result.warnings:
        terminal.note(f"warning: {words.short(kinds.unwrap(result.object))}: {terminal.one_line(warning)}")


def _targets(response: control.ApplyResponse) -> list[Target]:
    """The services: everything else is as asked at once."""
    applied = (result for result in response.results if result.action != control.APPLY_ACTION_PRUNED)
    values = (kinds.unwrap(result.object) for result in applied)
    return [Target.of(value) for value in values if isinstance(value, pb.Service)]


def _pruned(response: control.ApplyResponse) -> list[Target]:
    pruned = (result for result in response.results if result.action == control.APPLY_ACTION_PRUNED)
    return [Target.of(kinds.unwrap(result.object)) for result in pruned]

"""`orchctl apply`: manifests to the control plane, then wait until they are so."""

import click

from manifests import reader
from orchctl import client, errors, options, output, planned, sources, terminal, waiting, words
from orchctl.progress import Target
from protos import kinds
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb

APPLY_TIMEOUT_S = 60.0
_ACTIONS = {
    control.APPLY_ACTION_CREATED: "created",
    control.APPLY_ACTION_CHANGED: "changed",
    control.APPLY_ACTION_UNCHANGED: "unchanged",
}


@click.command()
@click.option(
    "-f",
    "--file",
    "paths",
    metavar="FILE",
    multiple=True,
    required=True,
    help="A file, a folder, or - . May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Check and show what would change; change nothing.")
@options.detach
@options.timeout
@options.with_settings
def command(settings: options.Settings, paths: tuple[str, ...], dry_run: bool, detach: bool, timeout_ms: int) -> None:
    """Make or change what the manifests describe, then wait until everything is as asked.

    All objects of all files are checked first; one mistake, and nothing is changed. What is equal already is left
    alone. Ctrl-C ends the waiting, not the change.

    \b
    Examples:
      orchctl apply -f hello.yaml
      orchctl apply -f shop/ -f extra.yaml --detach
      orchctl apply -f - --dry-run < hello.yaml
    """
    objects = read(paths, settings)
    if not objects:
        raise errors.InvalidInput("there is no object in these files")
    request = control.ApplyRequest(objects=map(kinds.wrap, objects), dry_run=dry_run)
    with client.connect(settings.server) as stub:
        response = stub.Apply(request, timeout=APPLY_TIMEOUT_S)
    for result in response.results:
        _print(result, dry_run=dry_run)
    output.print_lines(planned.page(response.placements))
    if not dry_run and not detach:
        waiting.until_settled(settings.server, _targets(response), timeout_ms)


def read(paths: tuple[str, ...], settings: options.Settings) -> tuple[kinds.StoredObject, ...]:
    """The objects of the files. InvalidInput with every mistake, a line each."""
    try:
        objects = reader.read(sources.read(paths), namespace=settings.namespace, load=sources.load).objects
    except reader.InvalidManifest as error:
        count = len(error.mistakes)
        raise errors.InvalidInput(
            f"{count} mistakes; nothing was changed" if count > 1 else "a mistake; nothing was changed",
            details=[str(mistake) for mistake in error.mistakes],
        ) from error
    said = settings.namespace_option
    for value in objects:
        if said and kinds.of(value).namespaced and value.meta.namespace != said:
            raise errors.InvalidInput(
                f"{kinds.label(value)} says its own namespace, which is not {said!r}",
                hint="leave out --namespace, or the namespace in the manifest",
            )
    return objects


def _print(result: control.ApplyResult, *, dry_run: bool) -> None:
    action = _ACTIONS.get(result.action, "applied")
    terminal.say(f"{words.short(kinds.unwrap(result.object))} {action}{' (dry run)' if dry_run else ''}")
    for change in result.changes:
        terminal.say(f"  {change}")
    for warning in result.warnings:
        terminal.note(f"warning: {words.short(kinds.unwrap(result.object))}: {terminal.one_line(warning)}")


def _targets(response: control.ApplyResponse) -> list[Target]:
    """The services: everything else is as asked at once."""
    values = (kinds.unwrap(result.object) for result in response.results)
    return [Target.of(value) for value in values if isinstance(value, pb.Service)]

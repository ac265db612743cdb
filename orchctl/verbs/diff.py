"""`orchctl diff`: what an apply of these manifests would change."""

import click

from orchctl import client, differences, errors, options
from orchctl.verbs import apply
from protos import kinds
from protos.orch.v1 import control_pb2 as control


@click.command()
@options.files("A file, a folder, or - .", required=True)
@click.option("--stack", default="", metavar="NAME", help="The stack that these objects belong to.")
@click.option("--prune", is_flag=True, help="Show also what of the stack is not in these files.")
@options.with_settings
def command(settings: options.Settings, paths: tuple[str, ...], stack: str, prune: bool) -> int:
    """Show what `apply` would change, in the fields that people write. Changes nothing.

    Exit codes: 0 there is no difference, 1 there is one, 2 it could not be told.

    \b
    Examples:
      orchctl diff -f hello.yaml
      orchctl diff -f shop/ --stack shop --prune
    """
    try:
        response = _ask(settings, paths, stack, prune=prune)
    except errors.OrchctlError as error:
        raise errors.NotCompared(error.message, hint=error.hint, details=error.details) from error
    found = [differences.show(result) for result in response.results]
    return errors.FAILED if any(found) else 0


def _ask(settings: options.Settings, paths: tuple[str, ...], stack: str, *, prune: bool) -> control.ApplyResponse:
    objects = apply.read(paths, settings)
    if not objects:
        raise errors.InvalidInput("there is no object in these files")
    request = control.ApplyRequest(objects=map(kinds.wrap, objects), dry_run=True, stack=stack, prune=prune)
    with client.connect(settings.server) as stub:
        return stub.Apply(request, timeout=client.APPLY_TIMEOUT_S)

"""`orchctl stop`: a service that keeps its place and runs nothing."""

import click

from orchctl import complete, options, rolling
from protos.orch.v1 import control_pb2 as control


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="SERVICE…", shell_complete=complete.services)
@options.detach
@options.timeout
@options.with_settings
def command(settings: options.Settings, names: tuple[str, ...], detach: bool, timeout_ms: int) -> None:
    """Run nothing of services. They keep their number of replicas, their names and their addresses. Of several, those
    that depend on others stop first.

    \b
    Examples:
      orchctl stop web
      orchctl stop web worker --detach
    """
    rolling.ask(settings, names, control.ROLLOUT_ACTION_STOP, wait_ms=None if detach else timeout_ms)

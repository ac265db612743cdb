"""`orchctl start`: a stopped service runs again."""

import click

from orchctl import complete, options, rolling
from protos.orch.v1 import control_pb2 as control


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="SERVICE…", shell_complete=complete.services)
@options.detach
@options.timeout
@options.with_settings
def command(settings: options.Settings, names: tuple[str, ...], detach: bool, timeout_ms: int) -> None:
    """Run services again that were stopped.

    \b
    Examples:
      orchctl start web
      orchctl start web worker --detach
    """
    rolling.ask(settings, names, control.ROLLOUT_ACTION_START, wait_ms=None if detach else timeout_ms)

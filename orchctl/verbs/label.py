"""`orchctl label`: words that objects are selected by."""

import click

from orchctl import complete, metadata, options


@click.command()
@click.argument(
    "what", nargs=-1, required=True, metavar="KIND NAME… KEY=VALUE…|KEY-…", shell_complete=complete.kind_then_names
)
@click.option("--overwrite", is_flag=True, help="Give another value to a label that is there already.")
@options.with_settings
def command(settings: options.Settings, what: tuple[str, ...], overwrite: bool) -> None:
    """Set labels of services, nodes and networks, or remove them with a minus behind the key.

    \b
    Examples:
      orchctl label service web tier=front
      orchctl label node n1 n2 disk=ssd zone-
      orchctl label service/web network/back team=blue --overwrite
    """
    metadata.change(settings, *metadata.split(what), "labels", overwrite=overwrite)

"""`orchctl annotate`: words about objects that nothing selects by."""

import click

from orchctl import complete, metadata, options


@click.command()
@click.argument(
    "what", nargs=-1, required=True, metavar="KIND NAME… KEY=TEXT…|KEY-…", shell_complete=complete.kind_then_names
)
@click.option("--overwrite", is_flag=True, help="Give another text to an annotation that is there already.")
@options.with_settings
def command(settings: options.Settings, what: tuple[str, ...], overwrite: bool) -> None:
    """Set annotations of services, nodes and networks, or remove them with a minus behind the key.

    \b
    Examples:
      orchctl annotate service web owner='Ann, phone 42'
      orchctl annotate node n1 rack-
    """
    metadata.change(settings, *metadata.split(what), "annotations", overwrite=overwrite)

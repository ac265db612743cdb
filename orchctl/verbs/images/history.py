"""`orchctl image history`: how an image came about."""

from typing import TYPE_CHECKING

import click

from orchctl import complete, options, output, terminal

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("name", metavar="IMAGE", shell_complete=complete.stored_images)
@output.documents_option
@options.platform
@options.with_store
def command(store: "ImageStore", name: str, form: str | None, platform: str) -> None:
    """Show the steps that made an image, the newest first, with the layers that they made."""
    from orchctl import imagepages, stores

    found = stores.find(store, name, platform)
    if form:
        steps = [imagepages.step(one) for one in reversed(found.history)]
        terminal.data(output.as_json(steps) if form == "json" else output.as_yaml(steps))
        return
    limit = terminal.size().columns if terminal.is_terminal() else 0
    output.print_lines(imagepages.history(found, terminal.now_ms(), limit=limit))

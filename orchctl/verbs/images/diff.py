"""`orchctl image diff`: what is different between two images."""

from typing import TYPE_CHECKING

import click

from orchctl import complete, options, output, stores, terminal

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("before", metavar="IMAGE", shell_complete=complete.stored_images)
@click.argument("after", metavar="IMAGE", shell_complete=complete.stored_images)
@output.documents_option
@options.platform
@options.with_store
def command(store: "ImageStore", before: str, after: str, form: str | None, platform: str) -> None:
    """Show which files were added, changed and removed from one image to another.

    A file whose time alone differs is not changed: every build writes it anew.
    """
    from images import differences
    from orchctl import imagepages

    changes = differences.compare(store, stores.find(store, before, platform), stores.find(store, after, platform))
    if form:
        documents = [imagepages.change(one) for one in changes]
        terminal.data(output.as_json(documents) if form == "json" else output.as_yaml(documents))
    elif changes:
        output.print_lines(imagepages.changes(changes))
    else:
        terminal.note("no differences")

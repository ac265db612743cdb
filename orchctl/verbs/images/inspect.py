"""`orchctl image inspect`: one image in full."""

from typing import TYPE_CHECKING

import click

from orchctl import complete, options, output, terminal

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGE…", shell_complete=complete.stored_images)
@output.documents_option
@options.platform
@options.with_store
def command(store: "ImageStore", names: tuple[str, ...], form: str | None, platform: str) -> None:
    """Show images in full: how they start, and their layers. IMAGE is a name, a digest or the first figures of one."""
    from orchctl import imagepages, stores

    found = [stores.find(store, name, platform) for name in names]
    if form:
        documents = [imagepages.document(one) for one in found]
        value = documents if len(documents) != 1 else documents[0]
        terminal.data(output.as_json(value) if form == "json" else output.as_yaml(value))
        return
    for number, one in enumerate(found):
        if number:
            terminal.say()
        output.print_lines(imagepages.page(one, terminal.now_ms()))

"""`orchctl image export`: the root file system of an image."""

from typing import TYPE_CHECKING

import click

from orchctl import complete, options, outfile, progressbars, stores

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("image", metavar="IMAGE", shell_complete=complete.stored_images)
@click.option("-o", "--output", "target", default="-", metavar="FILE", help="Where to.  [default: standard output]")
@options.platform
@options.with_store
def command(store: "ImageStore", image: str, target: str, platform: str) -> None:
    """Write the root file system of an image as one tar: all layers as one, without its configuration.

    \b
    Examples:
      orchctl image export web:1 | tar -t
      orchctl image export web:1 -o root.tar
    """
    from images import flatten

    found = stores.find(store, image, platform)
    with outfile.opened(target) as file, progressbars.shown() as watcher:
        flatten.export_root(store, found, file, watcher=watcher)

"""`orchctl image load`: every image of an archive."""

from typing import TYPE_CHECKING

import click

from orchctl import amounts, infile, options, progressbars, terminal

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("file", type=click.Path(allow_dash=True), default="-", metavar="[FILE|DIR]")
@options.platform
@options.with_store
def command(store: "ImageStore", file: str, platform: str) -> None:
    """Take in all images of an archive, under the names that it gives. Without FILE, from standard input.

    It may be an archive of `docker save`, `podman save` or `orchctl image save`, or an OCI layout as a tar or a folder,
    compressed or not.

    \b
    Examples:
      docker save web db | orchctl image load
      orchctl image load images.tar.zst
    """
    from images import archive
    from orchctl import imagepages, stores

    with infile.opened(file) as source, progressbars.shown() as watcher:
        images = archive.import_all(store, source, platform=stores.platform(platform), watcher=watcher)
    for one in images:
        for title in [imagepages.familiar(name) for name in one.names] or [one.digest]:
            terminal.say(f"{title} loaded ({amounts.digest(one.digest)}, {amounts.size(one.size_bytes)})")

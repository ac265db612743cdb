"""`orchctl image save`: images as a file, for other machines and other tools."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchctl import complete, errors, options, outfile, progressbars

if TYPE_CHECKING:
    from images.image import Image
    from images.store import ImageStore

FORMATS = ("docker-archive", "oci-archive", "oci-dir")


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…", shell_complete=complete.stored_images)
@click.option("-o", "--output", "target", default="-", metavar="FILE|DIR", help="Where to.  [default: standard output]")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="Which tools are to read it; docker-archive is read by all of them.",
)
@options.platform
@options.with_store
def command(store: "ImageStore", images: tuple[str, ...], target: str, form: str, platform: str) -> None:
    """Write images to one archive, with their layers and configurations as they are, so that digests stay.

    A name goes into the archive as it was written; an image that was named by digest goes with all of its names. What
    the images share is written once.

    \b
    Examples:
      orchctl image save web:1 | docker load
      orchctl image save web db -o images.tar --format oci-archive
    """
    from images import export

    found = _chosen(store, images, platform)
    if form == "oci-dir":
        if target == "-":
            raise errors.InvalidInput("a folder cannot be written to standard output", hint="name one with -o")
        with progressbars.shown() as watcher:
            export.export_folder(store, found, Path(target), watcher=watcher)
        return
    with outfile.opened(target) as file, progressbars.shown() as watcher:
        export.export_all(store, found, file, "docker" if form == "docker-archive" else "oci", watcher=watcher)


def _chosen(store: "ImageStore", texts: Sequence[str], platform: str) -> "list[Image]":
    """The images with the names that were asked for; one that was asked for by several stands once."""
    from dataclasses import replace

    from images import lookup, reference
    from orchctl import stores

    names: dict[str, list[str]] = {}
    found = {}
    for text in texts:
        one = stores.find(store, text, platform)
        found[one.digest] = one
        asked = [reference.parse(text).tagged] if lookup.is_name(store, text) else one.names
        names.setdefault(one.digest, []).extend(asked)
    return [replace(one, names=tuple(dict.fromkeys(names[digest]))) for digest, one in found.items()]

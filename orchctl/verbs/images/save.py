"""`orchctl image save`: images as a file, for other machines and other tools."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchctl import complete, errors, options, outfile, progressbars

if TYPE_CHECKING:
    from images import compress
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
@click.option(
    "--compress",
    type=click.Choice(("none", "gzip", "zstd")),
    help="Compress the layers so, which gives the image another digest and leaves its id.  [default: as they are]",
)
@options.platform
@options.with_store
def command(
    store: "ImageStore",
    images: tuple[str, ...],
    target: str,
    form: str,
    compress: "compress.Kind | None",
    platform: str,
) -> None:
    """Write images to one archive, with their layers and configurations as they are, so that digests stay.

    A name goes into the archive as it was written; an image that was named by digest goes with all of its names. What
    the images share is written once.

    \b
    Examples:
      orchctl image save web:1 | docker load
      orchctl image save web db -o images.tar --format oci-archive
    """
    if form == "oci-dir" and target == "-":
        raise errors.InvalidInput("a folder cannot be written to standard output", hint="name one with -o")
    found = _chosen(store, images, platform)
    with contextlib.ExitStack() as stack:
        watcher = stack.enter_context(progressbars.shown())
        if compress is not None:
            found = stack.enter_context(_recompressed(store, found, compress, watcher))
        _write(store, found, target, form, watcher)


def _write(store: "ImageStore", found: "Sequence[Image]", target: str, form: str, watcher: progressbars.Bars) -> None:
    from images import export

    if form == "oci-dir":
        export.export_folder(store, found, Path(target), watcher=watcher)
        return
    with outfile.opened(target) as file:
        export.export_all(store, found, file, "docker" if form == "docker-archive" else "oci", watcher=watcher)


@contextlib.contextmanager
def _recompressed(
    store: "ImageStore", found: "Sequence[Image]", kind: "compress.Kind", watcher: progressbars.Bars
) -> "Iterator[list[Image]]":
    """The images compressed so, as long as the block runs; then the store is as it was."""
    from images import errors as image_errors
    from images import recompress

    before = [one.digest for one in found]
    made: list[Image] = []
    try:
        with store.hold():
            made.extend(recompress.convert(store, one, kind, watcher=watcher) for one in found)
            yield made
    finally:
        with contextlib.suppress(image_errors.Busy):  # somebody fetches an image for minutes: the next prune does it
            store.forget((), [one.digest for one in made if one.digest not in before], keep=before)


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

"""`orchctl image rm`: the end of images on this machine."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchctl import amounts, complete, errors, options, terminal

if TYPE_CHECKING:
    from images.image import Image
    from images.store import ImageStore


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE…", shell_complete=complete.stored_images)
@click.option("--force", is_flag=True, help="Remove an image that was named by digest with all of its names.")
@options.with_store
def command(store: "ImageStore", images: tuple[str, ...], force: bool) -> None:
    """Remove images, and of their layers what no other image needs.

    A name is only taken away while the image has others. By its digest, or the first figures of it, an image is removed
    with its one name, or with --force with all of them. Images that a cluster has are removed with
    `orchctl delete image/NAME`.
    """
    from images import lookup
    from orchctl import imagepages

    names: dict[str, None] = {}
    digests = []
    for text in images:  # all of them are found before the first is removed
        if lookup.is_name(store, text):  # also when its image is damaged: that is why it goes
            names[imagepages.familiar(text)] = None
        else:
            found = lookup.find(store, text)
            names.update(dict.fromkeys(_all_names(text, found, force=force)))
            digests.append(found.digest)
    freed = store.forget(names, digests)
    for name in names:
        terminal.say(f"{name} removed")
    terminal.say(f"freed {amounts.size(freed.size_bytes + freed.unpacked_bytes)}")


def _all_names(text: str, found: "Image", *, force: bool) -> Sequence[str]:
    from orchctl import imagepages

    names = [imagepages.familiar(name) for name in found.names]
    if len(names) > 1 and not force:
        listed = ", ".join(names)
        raise errors.InvalidInput(f"{text} has {len(names)} names: {listed}", hint="name one of them, or use --force")
    return names

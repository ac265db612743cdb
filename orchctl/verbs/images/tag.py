"""`orchctl image tag`: another name for an image."""

from typing import TYPE_CHECKING

import click

from orchctl import complete, options, terminal

if TYPE_CHECKING:
    from images.store import ImageStore


@click.command()
@click.argument("image", metavar="IMAGE", shell_complete=complete.stored_images)
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@options.with_store
def command(store: "ImageStore", image: str, names: tuple[str, ...]) -> None:
    """Give an image more names, taking them from whatever had them.

    \b
    Examples:
      orchctl image tag web:2 web:latest
      orchctl image tag 4f53cda18c2b registry.example.com/team/web:2
    """
    from images import reference
    from orchctl import stores

    wanted = [reference.parse(name) for name in names]  # before the first of them is given
    digest = stores.digest_of(store, image)
    for name in wanted:
        store.tag(name.tagged, digest)
        terminal.say(f"{name.familiar} is {digest}")

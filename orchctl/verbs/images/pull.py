"""`orchctl image pull`: images from registries."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchctl import amounts, errors, options, terminal

if TYPE_CHECKING:
    from images.reference import Reference
    from images.store import ImageStore


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@options.platform
@click.option("--all-platforms", is_flag=True, help="All of an image for several platforms, such as to push it again.")
@options.registries
@options.with_store
def command(
    store: "ImageStore", names: tuple[str, ...], platform: str, all_platforms: bool, registries: Path | None
) -> None:
    """Fetch images from registries into this machine's store.

    A name is written as Docker writes it: without a registry it is one of Docker Hub's, without a tag it is :latest.
    What is here already is not fetched again, and a connection that is cut goes on where it was.

    \b
    Examples:
      orchctl image pull busybox:1.36
      orchctl image pull registry.lan:5000/team/web:1 --platform linux/arm64
    """
    from images import reference
    from orchctl import registering

    if platform and all_platforms:
        raise errors.InvalidInput("--platform and --all-platforms are two wishes", hint="choose one of them")
    for ref in [reference.parse(name) for name in names]:  # all of them, before the first is fetched
        before = _here(store, ref)
        image = registering.pull(store, ref.full, platform=platform, all_platforms=all_platforms, path=registries)
        word = "pulled" if before is None or _here(store, ref) != before else "is up to date"
        terminal.say(f"{ref} {word} ({amounts.digest(image.digest)}, {amounts.size(image.size_bytes)})")


def _here(store: "ImageStore", ref: "Reference") -> str | None:
    """The digest that the name stands for, or that it pins when it has no tag; None when that is not here in full."""
    from images import errors as image_errors

    digest = store.names().get(ref.tagged) if ref.tag else ref.digest
    try:
        return digest if digest and not store.missing(digest) else None
    except image_errors.ImageError:
        return None

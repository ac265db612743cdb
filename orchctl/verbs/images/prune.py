"""`orchctl image prune`: room on the disk."""

from typing import TYPE_CHECKING

import click

from orchctl import amounts, errors, options, output, terminal

if TYPE_CHECKING:
    from images.collect import Policy
    from images.store import ImageStore
    from images.sweep import Pruned


@click.command()
@click.option(
    "--all", "everything", is_flag=True, help="Remove every image, also those that have names, and what builds keep."
)
@click.option(
    "--older-than",
    "older_than_ms",
    type=options.DURATION,
    metavar="DURATION",
    help="Remove images, too, that were not named or unpacked for so long, such as 30d.",
)
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@options.with_store
def command(store: "ImageStore", everything: bool, older_than_ms: int | None, dry_run: bool) -> None:
    """Remove what no name leads to: images without names, and layers that no image needs.

    \b
    Examples:
      orchctl image prune
      orchctl image prune --older-than 30d --dry-run
    """
    if everything and older_than_ms is not None:
        raise errors.InvalidInput("--all leaves nothing for --older-than to choose", hint="use one of them")
    found = store.prune(forget=_policy(everything=everything, older_than_ms=older_than_ms), dry_run=dry_run)
    if not dry_run:
        _forget_steps(store, everything=everything)
    output.print_lines(_told(found, dry_run=dry_run))


def _forget_steps(store: "ImageStore", *, everything: bool) -> None:
    """What builds know of layers that are gone; with everything, their cached folders as well."""
    from images.build import cache

    known = cache.Cache(store=store)
    if everything:
        known.clear()
    else:
        known.forget_lost()


def _policy(*, everything: bool, older_than_ms: int | None) -> "Policy":
    from images import collect

    if older_than_ms is not None:
        return collect.unused_since((terminal.now_ms() - older_than_ms) / 1000)
    return collect.everything if everything else collect.nothing


def _told(found: "Pruned", *, dry_run: bool) -> list[str]:
    from orchctl import imagepages

    done = "would be removed" if dry_run else "removed"
    blobs = f"{amounts.count(found.blobs, 'blob')} ({amounts.size(found.size_bytes)})"
    layers = f"{amounts.count(found.layers, 'unpacked layer')} ({amounts.size(found.unpacked_bytes)})"
    lines = [f"{imagepages.familiar(name)} {done}" for name in found.names]
    return [*lines, f"{blobs} and {layers} {done}"]

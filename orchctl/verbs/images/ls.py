"""`orchctl image ls`: the images of this machine."""

from typing import TYPE_CHECKING

import click

from orchctl import options, output, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from images.store import ImageStore
    from orchctl.imagepages import Line


@click.command()
@output.option
@options.with_store
def command(store: "ImageStore", form: str | None) -> None:
    """List the images of this machine's store, at the end those that no name leads to.

    SIZE is what an image takes as it is stored. SHARED is the part that other images need, too; UNIQUE is what its
    removal frees.
    """
    from images import unnamed
    from orchctl import imagepages

    for name, why in store.broken().items():
        terminal.note(f"{imagepages.familiar(name)} cannot be read: {why}")
    others = unnamed.images(store)
    lines = imagepages.lines((*store.list(), *others), store.stored(also=[one.digest for one in others]))
    now_ms = terminal.now_ms()
    match form:
        case "json":
            terminal.data(output.as_json([imagepages.listed(line) for line in lines]))
        case "yaml":
            terminal.data(output.as_yaml([imagepages.listed(line) for line in lines]))
        case "name":
            output.print_lines(_called(lines))
        case _ if not lines:
            terminal.note("no images")
        case _:
            wide = form == "wide"
            limit = terminal.size().columns if terminal.is_terminal() and not wide else 0
            output.print_lines(imagepages.table(lines, now_ms, wide=wide, limit=limit))


def _called(lines: "Sequence[Line]") -> list[str]:
    """By what each image can be named elsewhere: its names, or its digest."""
    from orchctl import imagepages

    names = sorted(imagepages.familiar(name) for line in lines for name in line.image.names)
    return [*names, *(line.image.digest for line in lines if not line.image.names)]

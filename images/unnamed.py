"""Images that no name leads to: of archives without names, built without one, or whose name now means another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from images import errors

if TYPE_CHECKING:
    from images.image import Image
    from images.store import ImageStore


def images(store: ImageStore) -> tuple[Image, ...]:
    """Those that are whole, by digest. The next `prune` removes them, unless somebody names them first."""
    named = {part for digest in store.names().values() for part in store.reached(digest)}
    found = (_whole(store, digest) for digest in store.documents() if digest not in named)
    return tuple(one for one in found if one is not None)


def _whole(store: ImageStore, digest: str) -> Image | None:
    """The image of a manifest; most documents are something else, such as configurations."""
    try:
        one = store.resolve(digest)
        return one if one.digest == digest and not store.missing(digest) else None
    except errors.ImageError:
        return None

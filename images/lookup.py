"""What a person calls an image: a name, a digest, or the first figures of one.

The rule: a name wins, then a whole digest, then a beginning of at least `MIN_FIGURES` figures, of a manifest's or a
config's digest, that means one image. What may mean several is refused with all of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from images import digest as digests
from images import errors, manifest, reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.image import Image
    from images.store import ImageStore

MIN_FIGURES = 4
_FIGURES = re.compile(rf"(?:sha256:)?([0-9a-f]{{{MIN_FIGURES},64}})")


def find(store: ImageStore, text: str, *, platform: manifest.Platform | None = None) -> Image:
    """The image that is meant. `NotFound` when there is none, `InvalidReference` when it may be one of several."""
    if is_name(store, text) or digests.is_digest(text):
        return _whole(store, text, platform)
    figures = _FIGURES.fullmatch(text)
    found = list(_starting_with(store, figures[1], platform)) if figures else []
    if len(found) > 1:
        listed = ", ".join(f"{image.digest[7:23]} ({', '.join(image.names) or 'no name'})" for image in found)
        raise errors.InvalidReference(f"{text} may be any of {len(found)} images: {listed}; write more figures")
    return found[0] if found else store.resolve(text, platform=platform)


def is_name(store: ImageStore, text: str) -> bool:
    """Whether the text is a name that the store knows."""
    return _named(store, text) is not None


def digest_of(store: ImageStore, text: str) -> str:
    """The digest that a name stands for, which may be that of an index for several platforms; else as `find`."""
    return _named(store, text) or find(store, text).digest


def _named(store: ImageStore, text: str) -> str | None:
    try:
        return None if "@" in text else store.names().get(reference.parse(text).tagged)
    except errors.InvalidReference:
        return None


def _whole(store: ImageStore, text: str, platform: manifest.Platform | None) -> Image:
    """By name or digest; the digest may also be a config's, which other tools call the image's id."""
    if digests.is_digest(text):
        by_config = [image for image in store.list() if image.config_digest == text]
        if by_config:
            return by_config[0]
    return store.resolve(text, platform=platform)


def _starting_with(store: ImageStore, figures: str, platform: manifest.Platform | None) -> Iterator[Image]:
    start = digests.PREFIX + figures
    seen: set[str] = set()
    for image in store.list():
        if image.digest.startswith(start) or image.config_digest.startswith(start):
            seen.add(image.digest)
            yield image
    for digest in store.blobs_starting_with(figures):
        image_ = _if_manifest(store, digest, platform)
        if image_ is not None and image_.digest not in seen:
            seen.add(image_.digest)
            yield image_


def _if_manifest(store: ImageStore, digest: str, platform: manifest.Platform | None) -> Image | None:
    """An image that nobody names, or one of an index; most blobs are something else."""
    try:
        return store.resolve(digest, platform=platform)
    except (errors.InvalidImage, errors.NotFound):
        return None

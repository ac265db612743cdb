"""What images are called on this node: whatever has a name stays until it is old or the disk fills.

The rule: nothing that has come loses its last name to another image. What a manifest names by its digest, and what a
tag meant before it moved, is called by the digest: `web:sha256-HEX`.
"""

import contextlib

import structlog

from images import digest as digests
from images import errors, reference
from images.image import Image
from images.store import ImageStore

log = structlog.get_logger()


def give(store: ImageStore, text: str, digest: str) -> Image:
    """Call a whole image as a manifest does. Raises what the store says. Blocks."""
    name = by_digest(text, digest) if reference.parse(text).digest else reference.parse(text).tagged
    try:
        before = store.names().get(name, digest)
        if before != digest:
            with contextlib.suppress(errors.NotFound):  # parts of it are gone
                store.tag(by_digest(text, before), before)
        return store.tag(name, digest)
    except errors.LimitExceeded as error:
        # Nothing is wrong with the image: it runs, and goes when nothing needs it.
        log.warning("an image has no name on this node", reference=text, why=str(error))
        return store.resolve(digest)


def by_digest(text: str, digest: str) -> str:
    """The full name of an image of that repository which no tag means."""
    said = reference.parse(text)
    tag = f"sha256-{digests.hex_of(digest)}"
    return reference.Reference(registry=said.registry, repository=said.repository, tag=tag).tagged

"""From layers and settings to an image of the store: configuration, manifest, names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from images import manifest
from images.manifest import Descriptor, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from images.build.configuration import Settings
    from images.image import Image, Layer
    from images.manifest import Platform
    from images.store import ImageStore

_OCI_TYPES = {
    manifest.DOCKER_LAYER: manifest.OCI_LAYER,
    f"{manifest.DOCKER_LAYER}.gzip": f"{manifest.OCI_LAYER}+gzip",
}


def add(
    store: ImageStore,
    settings: Settings,
    layers: Sequence[Layer],
    *,
    platform: Platform,
    created: str,
    names: Sequence[str] = (),
) -> Image:
    """The image under its names. Its layers are in the store already; call it inside `store.hold()`."""
    document = settings.document(platform, tuple(layer.diff_id for layer in layers), created)
    config = Descriptor(media_type=manifest.OCI_CONFIG, digest=store.put_bytes(document), size_bytes=len(document))
    body = Manifest(media_type=manifest.OCI_MANIFEST, config=config, layers=tuple(map(_descriptor, layers)))
    digest = store.put_bytes(body.as_bytes())
    for name in names:
        store.tag(name, digest)
    return store.resolve(digest)


def _descriptor(layer: Layer) -> Descriptor:
    media_type = _OCI_TYPES.get(layer.media_type, layer.media_type)
    return Descriptor(media_type=media_type, digest=layer.digest, size_bytes=layer.size_bytes)

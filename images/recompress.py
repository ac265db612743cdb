"""An image with its layers compressed another way, for a registry or an archive.

The rule: what an image is does not change. The config, and with it every diff id, stays as it is; only the layers'
blobs and the manifest that lists them are new.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from images import compress, compression, manifest, progress
from images.manifest import Descriptor, Manifest

if TYPE_CHECKING:
    from images.image import Image, Layer
    from images.store import ImageStore

_SILENT = progress.Silent()
_DEFAULT_LIMITS = compression.Limits()


def convert(store: ImageStore, image: Image, kind: compress.Kind, *, watcher: progress.Progress = _SILENT) -> Image:
    """Store and return the image with all layers compressed so, under no name; layers that are stay as they are.

    Call it inside `store.hold()`, or its blobs may be pruned. It is handed the names of `image` for whoever writes it
    out, but the store does not give them. `InvalidImage` when a layer is not what it should be.
    """
    found = manifest.parse_manifest(store.read_document(image.digest), what=f"manifest {image.digest}")
    pairs = zip(found.layers, image.layers, strict=True)
    layers = tuple(_layer(store, image, entry, layer, kind, watcher) for entry, layer in pairs)
    if all(new.digest == old.digest for new, old in zip(layers, found.layers, strict=True)):
        return image
    config = replace(found.config, media_type=manifest.OCI_CONFIG)
    body = Manifest(media_type=manifest.OCI_MANIFEST, config=config, layers=layers)
    return replace(store.resolve(store.put_bytes(body.as_bytes())), names=image.names)


def _layer(
    store: ImageStore,
    image: Image,
    entry: Descriptor,
    layer: Layer,
    kind: compress.Kind,
    watcher: progress.Progress,
) -> Descriptor:
    what = f"image {image.title}: layer {layer.digest}"
    with store.open(layer.digest) as blob:
        found = compression.peek(blob, what=what)
        if found == kind:
            return replace(entry, media_type=manifest.layer_type(kind))  # its neighbours are OCI's now
        counted = progress.Counted(blob, watcher, layer.digest, "compressing", layer.size_bytes)
        meter = compression.Meter(
            compression.decompressed(counted, found, what=what),
            stored_bytes=layer.size_bytes,
            limits=_DEFAULT_LIMITS,
            what=what,
        )
        with store.writer() as made:
            compress.copy(meter, made, kind)
            meter.check(layer.diff_id)
    watcher.step(layer.digest, "done", layer.size_bytes, layer.size_bytes)
    return Descriptor(media_type=manifest.layer_type(kind), digest=made.digest, size_bytes=made.size_bytes)

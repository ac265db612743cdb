"""Write an image out as one tar, for other tools or for another store.

The rule: blobs go out with the bytes they came in with, and the archive of an image is the same on every machine.

`oci` is an OCI layout. `docker` is the same with a `manifest.json` beside it, which is what `docker save` has written
since Docker 25 and what `docker load` of any age, podman and skopeo read.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Literal

from images import documents, errors, layout, manifest, reference, streams, tarwrite
from images.manifest import Descriptor, Index

if TYPE_CHECKING:
    from images.image import Image
    from images.store import ImageStore

Format = Literal["oci", "docker"]


def export_archive(store: ImageStore, image: Image, file: streams.Sink, format: Format = "oci") -> None:  # noqa: A002 - the word of every peer
    """Write the image with all its names; `NotFound` when a blob is missing. The file may be a pipe."""
    with store.hold():
        lacking = store.missing(image.digest)
        if lacking:
            raise errors.NotFound(f"image {image.title}: blob {lacking[0].digest} is missing; fetch the image again")
        tarwrite.write_bytes(file, layout.MARKER, layout.MARKER_BYTES)
        tarwrite.write_bytes(file, layout.INDEX, _index(store, image).as_bytes())
        if format == "docker":
            tarwrite.write_bytes(file, "manifest.json", _docker_manifest(image))
        _write_blobs(store, image, file)
        tarwrite.write_end(file)


def _index(store: ImageStore, image: Image) -> Index:
    media_type = manifest.parse(store.read_document(image.digest), what=f"manifest {image.digest}").media_type
    entries = tuple(
        Descriptor(
            media_type=media_type,
            digest=image.digest,
            size_bytes=store.size_bytes(image.digest),
            platform=image.platform,
            annotations=((layout.REF_NAME, name), (layout.CONTAINERD_NAME, name)) if name else (),
        )
        for name in image.names or ("",)
    )
    return Index(media_type=manifest.OCI_INDEX, manifests=entries)


def _docker_manifest(image: Image) -> bytes:
    item = {
        "Config": layout.blob_path(image.config_digest),
        "RepoTags": [reference.parse(name).familiar for name in image.names],
        "Layers": [layout.blob_path(layer.digest) for layer in image.layers],
    }
    return documents.dump([item])


def _write_blobs(store: ImageStore, image: Image, file: streams.Sink) -> None:
    wanted = {image.digest, image.config_digest, *(layer.digest for layer in image.layers)}
    for digest in sorted(wanted):
        with store.open(digest) as blob:
            tarwrite.write_file(file, tarfile.TarInfo(layout.blob_path(digest)), blob)

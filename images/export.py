"""Write images out, for other tools or for another store: as one tar, or as a folder.

The rule: blobs go out with the bytes they came in with, and the archive of an image is the same on every machine.

`oci` is an OCI layout. `docker` is the same with a `manifest.json` beside it, which is what `docker save` has written
since Docker 25 and what `docker load` of any age, podman and skopeo read.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from images import (
    blobs,
    disk,
    documents,
    errors,
    hashing,
    layout,
    manifest,
    progress,
    reference,
    scratch,
    streams,
    syscalls,
    tarwrite,
)
from images.manifest import Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from images.image import Image
    from images.store import ImageStore

Format = Literal["oci", "docker"]
_SILENT = progress.Silent()


def export_archive(store: ImageStore, image: Image, file: streams.Sink, format: Format = "oci") -> None:  # noqa: A002 - the word of every peer
    """Write the image with all its names; `NotFound` when a blob is missing. The file may be a pipe."""
    export_all(store, [image], file, format)


def export_all(
    store: ImageStore,
    images: Sequence[Image],
    file: streams.Sink,
    format: Format = "oci",  # noqa: A002 - the word of every peer
    *,
    watcher: progress.Progress = _SILENT,
) -> None:
    """Write several images, each with its names, into one archive; what they share stands in it once."""
    with store.hold():
        _check_complete(store, images)
        tarwrite.write_bytes(file, layout.MARKER, layout.MARKER_BYTES)
        tarwrite.write_bytes(file, layout.INDEX, _index(store, images).as_bytes())
        if format == "docker":
            tarwrite.write_bytes(file, "manifest.json", documents.dump([_docker_item(image) for image in images]))
        for digest, told in _wanted(images, watcher):
            _write_blob(store, digest, file, told)
        tarwrite.write_end(file)


def export_folder(
    store: ImageStore, images: Sequence[Image], folder: Path, *, watcher: progress.Progress = _SILENT
) -> None:
    """Write several images as an OCI layout; the folder must not exist, and does so only once it is whole.

    Until then it is `.NAME.part` beside it; what a save that was killed has left there goes with the next one.
    """
    with store.hold(), disk.storage_errors(f"writing {folder}"):
        _check_complete(store, images)
        if folder.exists():
            raise errors.StorageFailed(f"{folder} exists already; name a folder that does not")
        with scratch.beside(folder) as work:
            target = work.path / "blobs" / "sha256"
            target.mkdir(parents=True)
            for digest, told in _wanted(images, watcher):
                with (work.path / layout.blob_path(digest)).open("wb") as file:
                    _copy_blob(store, digest, file, told)
            (work.path / layout.MARKER).write_bytes(layout.MARKER_BYTES)
            (work.path / layout.INDEX).write_bytes(_index(store, images).as_bytes())
            for path in (work.path, work.path / "blobs", target):
                path.chmod(0o755)
            syscalls.syncfs(work.fd)
            work.path.rename(folder)
            blobs.sync_folder(folder.absolute().parent)


def _check_complete(store: ImageStore, images: Sequence[Image]) -> None:
    for image in images:
        lacking = store.missing(image.digest)
        if lacking:
            raise errors.NotFound(f"image {image.title}: blob {lacking[0].digest} is missing; fetch the image again")


def _index(store: ImageStore, images: Sequence[Image]) -> Index:
    entries = tuple(entry for image in images for entry in _index_entries(store, image))
    return Index(media_type=manifest.OCI_INDEX, manifests=entries)


def _index_entries(store: ImageStore, image: Image) -> Iterator[Descriptor]:
    media_type = manifest.parse(store.read_document(image.digest), what=f"manifest {image.digest}").media_type
    for name in image.names or ("",):
        yield Descriptor(
            media_type=media_type,
            digest=image.digest,
            size_bytes=store.size_bytes(image.digest),
            platform=image.platform,
            annotations=((layout.REF_NAME, name), (layout.CONTAINERD_NAME, name)) if name else (),
        )


def _docker_item(image: Image) -> dict[str, object]:
    return {
        "Config": layout.blob_path(image.config_digest),
        "RepoTags": [reference.parse(name).familiar for name in image.names],
        "Layers": [layout.blob_path(layer.digest) for layer in image.layers],
    }


def _wanted(images: Sequence[Image], watcher: progress.Progress) -> Sequence[tuple[str, progress.Progress]]:
    """Every blob once, in the order of digests, each with whom to tell: of layers only."""
    layers = {layer.digest for image in images for layer in image.layers}
    documents_ = {digest for image in images for digest in (image.digest, image.config_digest)}
    return [(digest, watcher if digest in layers else _SILENT) for digest in sorted(layers | documents_)]


def _write_blob(store: ImageStore, digest: str, file: streams.Sink, watcher: progress.Progress) -> None:
    info = tarfile.TarInfo(layout.blob_path(digest))
    info.size = store.size_bytes(digest)
    tarwrite.write_member(file, info)
    _copy_blob(store, digest, file, watcher)
    file.write(bytes(-info.size % tarfile.BLOCKSIZE))


def _copy_blob(store: ImageStore, digest: str, file: streams.Sink, watcher: progress.Progress) -> None:
    """Write a blob, and digest it meanwhile: what the disk damaged must not travel on."""
    found = hashing.Sha256()
    size_bytes = store.size_bytes(digest)
    with store.open(digest) as blob:
        source = progress.Counted(blob, watcher, digest, "saving", size_bytes)
        while data := source.read(streams.CHUNK_BYTES):
            found.update(data)
            file.write(data)
    if found.digest != digest:
        store.check_blob(digest)
        raise errors.DigestMismatch(f"blob {digest} was read with other bytes than it has; write the image again")
    watcher.step(digest, "done", size_bytes, size_bytes)

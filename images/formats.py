"""The two forms in which tools write images into an archive: OCI layouts and `docker save`.

Rules. Blobs keep their bytes; what an archive announces is compared with them as they are stored. A Docker archive has
no manifest of its own, so one is written: it is a function of the config and the layers, and equal for equal images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import compression, documents, errors, layout, manifest, members, progress
from images import digest as digests
from images.image import parse_config
from images.manifest import Descriptor, Index, Manifest, Platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.store import ImageStore

# The members by which an archive of images is told from a root file system.
MARKERS = (layout.MARKER, "manifest.json", "repositories")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image of an archive: the names it came with, and its manifest in the store."""

    labels: tuple[str, ...]
    digest: str

    @property
    def names(self) -> tuple[str, ...]:
        # A bare word is a tag that means something only inside its layout (umoci writes these): it names no image.
        return tuple(label for label in self.labels if ":" in label or "/" in label)


def read(store: ImageStore, archive: members.Members, platform: Platform, watcher: progress.Progress) -> list[Found]:
    """Store every image of the archive, none named yet; call it inside `store.hold()`."""
    if archive.has(layout.MARKER):
        return _oci(store, archive, platform, watcher)
    if archive.has("manifest.json"):
        return _docker(store, archive, watcher)
    if archive.has("repositories"):
        raise errors.Unsupported(f"{archive.what}: saved by a Docker before 1.10; load and save it with a newer one")
    raise errors.InvalidImage(f"{archive.what}: neither oci-layout nor manifest.json; name an OCI layout or a tar")


def _docker(store: ImageStore, archive: members.Members, watcher: progress.Progress) -> list[Found]:
    items = documents.parse_list(members.read_document(archive, "manifest.json"), what=f"{archive.what}: manifest.json")
    if not items:
        raise errors.InvalidImage(f"{archive.what}: manifest.json lists no image")
    return [_docker_image(store, archive, item, watcher) for item in items]


def _docker_image(
    store: ImageStore, archive: members.Members, item: documents.Object, watcher: progress.Progress
) -> Found:
    config_name = item.text("Config")
    data = members.read_document(archive, config_name)
    config = parse_config(data, what=f"{archive.what}: {config_name}")
    paths = item.texts("Layers")
    if len(paths) != len(config.diff_ids):
        item.refuse("Layers", f"{len(paths)} layers, but the config lists {len(config.diff_ids)} diff ids")
    pairs = zip(paths, config.diff_ids, strict=True)
    layers = tuple(_docker_layer(store, archive, path, diff_id, watcher) for path, diff_id in pairs)
    entry = Descriptor(media_type=manifest.OCI_CONFIG, digest=store.put_bytes(data), size_bytes=len(data))
    body = Manifest(media_type=manifest.OCI_MANIFEST, config=entry, layers=layers)
    return Found(labels=item.texts("RepoTags"), digest=store.put_bytes(body.as_bytes()))


def _docker_layer(
    store: ImageStore, archive: members.Members, path: str, diff_id: str, watcher: progress.Progress
) -> Descriptor:
    with archive.open(path) as window:
        kind = compression.detect(window.peek(compression.MAGIC_BYTES), what=f"{archive.what}: entry {path}")
        plain, media_type = kind == "none", manifest.layer_type(kind)
        if plain and store.has(diff_id):
            watcher.step(diff_id, "exists", 0, None)
            return Descriptor(media_type=media_type, digest=diff_id, size_bytes=store.size_bytes(diff_id))
        # An uncompressed layer is its own diff id; a compressed one is compared when it is unpacked.
        with store.writer(diff_id if plain else None, window.size_bytes) as blob:
            blob.copy(progress.Counted(window, watcher, diff_id, "importing", window.size_bytes))
    watcher.step(diff_id, "done", blob.size_bytes, blob.size_bytes)
    return Descriptor(media_type=media_type, digest=blob.digest, size_bytes=blob.size_bytes)


def _oci(store: ImageStore, archive: members.Members, platform: Platform, watcher: progress.Progress) -> list[Found]:
    layout.check_marker(members.read_document(archive, layout.MARKER), what=f"{archive.what}: {layout.MARKER}")
    what = f"{archive.what}: index.json"
    index = manifest.parse(members.read_document(archive, layout.INDEX), what=what)
    if not isinstance(index, Index):
        raise errors.InvalidImage(f"{what}: is no index of images")
    return [
        Found(labels=labels, digest=_oci_image(store, archive, entry, platform, watcher))
        for entry, labels in _oci_images(index, platform, what=what)
    ]


def _oci_image(
    store: ImageStore,
    archive: members.Members,
    entry: Descriptor,
    platform: Platform,
    watcher: progress.Progress,
) -> str:
    found = manifest.parse(
        _oci_document(archive, entry), what=f"{archive.what}: {entry.digest}", media_type=entry.media_type
    )
    if isinstance(found, Index):
        chosen = found.choose(platform, what=f"{archive.what}: index {entry.digest}")
        if chosen.media_type in manifest.INDEX_TYPES:
            raise errors.InvalidImage(f"{archive.what}: index {entry.digest} holds another index; save one image")
        return _oci_image(store, archive, chosen, platform, watcher)
    for blob in found.layers:
        _oci_blob(store, archive, blob, watcher)
    for document in (found.config, entry):
        _oci_blob(store, archive, document, progress.Silent())
    return entry.digest


def _oci_document(archive: members.Members, entry: Descriptor) -> bytes:
    data = members.read_document(archive, layout.blob_path(entry.digest))
    if len(data) != entry.size_bytes or digests.of_bytes(data) != entry.digest:
        raise errors.DigestMismatch(f"{archive.what}: {entry.digest} has other bytes than announced; save it again")
    return data


def _oci_blob(store: ImageStore, archive: members.Members, entry: Descriptor, watcher: progress.Progress) -> None:
    if store.has(entry.digest):
        watcher.step(entry.digest, "exists", 0, None)
        return
    with (
        archive.open(layout.blob_path(entry.digest)) as window,
        store.writer(entry.digest, entry.size_bytes) as blob,
    ):
        blob.copy(progress.Counted(window, watcher, entry.digest, "importing", entry.size_bytes))
    watcher.step(entry.digest, "done", entry.size_bytes, entry.size_bytes)


def _oci_images(index: Index, platform: Platform, *, what: str) -> Iterator[tuple[Descriptor, tuple[str, ...]]]:
    """The images of a layout: one for each digest that has names, or else the one for the platform."""
    named: dict[str, tuple[Descriptor, tuple[str, ...]]] = {}
    for entry in index.manifests:
        label = entry.annotation(layout.CONTAINERD_NAME) or entry.annotation(layout.REF_NAME)
        if label:
            _, labels = named.get(entry.digest, (entry, ()))
            named[entry.digest] = (entry, (*labels, label))
    if named:
        yield from named.values()
    else:
        yield index.choose(platform, what=what), ()

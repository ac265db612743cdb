"""The two forms in which tools write images into an archive: OCI layouts and `docker save`.

Rules. Blobs keep their bytes, and several come in at a time; what an archive announces is compared with them as they
are stored. A Docker archive has no manifest of its own, so one is written: it is a function of the config and the
layers, and equal for equal images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import compression, documents, errors, layout, manifest, members, parallel, progress
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
        return _Layout(store, archive, platform, watcher).read()
    if archive.has("manifest.json"):
        return _DockerArchive(store, archive, watcher).read()
    if archive.has("repositories"):
        raise errors.Unsupported(f"{archive.what}: saved by a Docker before 1.10; load and save it with a newer one")
    raise errors.InvalidImage(f"{archive.what}: neither oci-layout nor manifest.json; name an OCI layout or a tar")


class _DockerArchive:
    """What `docker save` writes: configs and layers by paths, listed in `manifest.json`."""

    def __init__(self, store: ImageStore, archive: members.Members, watcher: progress.Progress) -> None:
        self._store = store
        self._archive = archive
        self._watcher = watcher

    def read(self) -> list[Found]:
        what = f"{self._archive.what}: manifest.json"
        items = documents.parse_list(members.read_document(self._archive, "manifest.json"), what=what)
        if not items:
            raise errors.InvalidImage(f"{self._archive.what}: manifest.json lists no image")
        return [self._image(item) for item in items]

    def _image(self, item: documents.Object) -> Found:
        config_name = item.text("Config")
        data = members.read_document(self._archive, config_name)
        config = parse_config(data, what=f"{self._archive.what}: {config_name}")
        paths = item.texts("Layers")
        if len(paths) != len(config.diff_ids):
            item.refuse("Layers", f"{len(paths)} layers, but the config lists {len(config.diff_ids)} diff ids")
        wanted = list(zip(paths, config.diff_ids, strict=True))
        once = list(dict.fromkeys(wanted))  # an image may have one layer twice
        stored = dict(zip(once, parallel.each(self._layer, once, title="import"), strict=True))
        layers = tuple(stored[one] for one in wanted)
        entry = Descriptor(media_type=manifest.OCI_CONFIG, digest=self._store.put_bytes(data), size_bytes=len(data))
        body = Manifest(media_type=manifest.OCI_MANIFEST, config=entry, layers=layers)
        return Found(labels=item.texts("RepoTags"), digest=self._store.put_bytes(body.as_bytes()))

    def _layer(self, place: tuple[str, str]) -> Descriptor:
        path, diff_id = place
        with self._archive.open(path) as window:
            what = f"{self._archive.what}: entry {path}"
            kind = compression.detect(window.peek(compression.MAGIC_BYTES), what=what)
            plain, media_type = kind == "none", manifest.layer_type(kind)
            if plain and self._store.has(diff_id):
                self._watcher.step(diff_id, "exists", 0, None)
                return Descriptor(media_type=media_type, digest=diff_id, size_bytes=self._store.size_bytes(diff_id))
            # An uncompressed layer is its own diff id; a compressed one is compared when it is unpacked.
            with self._store.writer(diff_id if plain else None, window.size_bytes) as blob:
                blob.copy(progress.Counted(window, self._watcher, diff_id, "importing", window.size_bytes))
        self._watcher.step(diff_id, "done", blob.size_bytes, blob.size_bytes)
        return Descriptor(media_type=media_type, digest=blob.digest, size_bytes=blob.size_bytes)


class _Layout:
    """An OCI layout: everything by digest, listed in `index.json`."""

    def __init__(
        self, store: ImageStore, archive: members.Members, platform: Platform, watcher: progress.Progress
    ) -> None:
        self._store = store
        self._archive = archive
        self._platform = platform
        self._watcher = watcher

    def read(self) -> list[Found]:
        marker = members.read_document(self._archive, layout.MARKER)
        layout.check_marker(marker, what=f"{self._archive.what}: {layout.MARKER}")
        what = f"{self._archive.what}: index.json"
        index = manifest.parse(members.read_document(self._archive, layout.INDEX), what=what)
        if not isinstance(index, Index):
            raise errors.InvalidImage(f"{what}: is no index of images")
        return [
            Found(labels=labels, digest=self._image(entry))
            for entry, labels in _oci_images(index, self._platform, what=what)
        ]

    def _image(self, entry: Descriptor) -> str:
        what = f"{self._archive.what}: {entry.digest}"
        found = manifest.parse(self._document(entry), what=what, media_type=entry.media_type)
        if isinstance(found, Index):
            chosen = found.choose(self._platform, what=f"{self._archive.what}: index {entry.digest}")
            if chosen.media_type in manifest.INDEX_TYPES:
                raise errors.InvalidImage(
                    f"{self._archive.what}: index {entry.digest} holds another index; save one image"
                )
            return self._image(chosen)
        once = list({layer.digest: layer for layer in found.layers}.values())
        parallel.each(lambda layer: self._blob(layer, self._watcher), once, title="import")
        for document in (found.config, entry):
            self._blob(document, progress.Silent())
        return entry.digest

    def _document(self, entry: Descriptor) -> bytes:
        data = members.read_document(self._archive, layout.blob_path(entry.digest))
        if len(data) != entry.size_bytes or digests.of_bytes(data) != entry.digest:
            raise errors.DigestMismatch(
                f"{self._archive.what}: {entry.digest} has other bytes than announced; save it again"
            )
        return data

    def _blob(self, entry: Descriptor, watcher: progress.Progress) -> None:
        if self._store.has(entry.digest):
            watcher.step(entry.digest, "exists", 0, None)
            return
        with (
            self._archive.open(layout.blob_path(entry.digest)) as window,
            self._store.writer(entry.digest, entry.size_bytes) as blob,
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

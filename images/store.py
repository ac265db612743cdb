"""The image store: an OCI layout on the disk, its names, and the folders of unpacked layers.

::

    ROOT/                 0700, as are all folders below
      oci-layout          {"imageLayoutVersion": "1.0.0"}
      index.json          the names: one descriptor a name, with `org.opencontainers.image.ref.name`
      blobs/sha256/HEX    manifests, indexes, configs and layers as they were stored
      layers/HEX/diff     a layer unpacked, named by chain id; made by `images.unpack`
      tmp/                work in progress, swept when a store is opened
      locks/              gc (shared by whoever adds, exclusive for prune), names, and one for each layer

Two rules. Whatever has its final name is whole, so a `kill -9` at any moment needs no repair. And `prune` waits for
everyone inside `hold()`: whoever adds blobs that nothing names yet works inside it, up to and including `tag`.

Any number of threads and processes may use one store at once.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from images import blobs, collect, documents, errors, image, layout, locks, manifest, names, reference, scratch
from images import digest as digests

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

_LOCK_TIMEOUT_S = 30.0
# A person's prune waits this long for imports and pulls in progress; they may take minutes.
_PRUNE_TIMEOUT_S = 60.0
_MAX_INDEX_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A manifest and its config, read and checked against each other."""

    digest: str
    manifest: manifest.Manifest
    config: image.ConfigDocument


class ImageStore:
    """A store below one folder; opening it makes what is missing and sweeps what a crash left."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.tmp = self.root / "tmp"
        self.layers = self.root / "layers"
        self._blobs = self.root / "blobs" / "sha256"
        self._locks = self.root / "locks"
        with blobs.storage_errors(f"opening the image store {root}"):
            for folder in (self.root, self._blobs.parent, self._blobs, self.layers, self.tmp, self._locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.sweep(self.tmp)
        self._check_layout()
        self._names = names.Names(self.root / layout.INDEX, lock=self._locks / "names", area=self.tmp)

    def _check_layout(self) -> None:
        marker = self.root / layout.MARKER
        if not marker.exists():
            blobs.replace_file(marker, layout.MARKER_BYTES, self.tmp)
        layout.check_marker(documents.read_bounded(marker), what=str(marker))

    # Blobs ----------------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        return self._blob_path(digest).exists()

    def size_bytes(self, digest: str) -> int:
        with self._finding(digest):
            return self._blob_path(digest).stat().st_size

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading; it stays readable even when it is pruned meanwhile."""
        with self._finding(digest):
            return self._blob_path(digest).open("rb")

    def writer(
        self, digest: str | None = None, size: int | None = None
    ) -> contextlib.AbstractContextManager[blobs.Writer]:
        """`with store.writer(digest, size) as blob: blob.write(…)`: kept only if the bytes are those announced."""
        return blobs.writer(self._blobs, self.tmp, digest=digest, size_bytes=size)

    def put_bytes(self, data: bytes) -> str:
        """Store a small blob and return its digest."""
        with self.writer(size=len(data)) as blob:
            blob.write(data)
        return blob.digest

    def read_document(self, digest: str) -> bytes:
        """A manifest, index or config: bounded, and compared with its digest again."""
        with self.open(digest) as file:
            data = file.read(documents.MAX_DOCUMENT_BYTES + 1)
        if len(data) <= documents.MAX_DOCUMENT_BYTES and digests.of_bytes(data) != digest:
            self._drop_damaged(digest)
        return data

    def check_blob(self, digest: str) -> None:
        """Digest a whole blob again; one that the disk damaged is removed, so that it can be fetched anew."""
        with self._finding(digest), self._blob_path(digest).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digests.hex_of(digest):
            self._drop_damaged(digest)

    # Images ---------------------------------------------------------------------------------------------------------

    def resolve(self, name_or_digest: str, *, platform: manifest.Platform | None = None) -> image.Image:
        """The image of a name (`web`, `host:5000/web:1`, `web@sha256:…`) or of a manifest's digest.

        An index answers with its image for `platform` (default: this machine's). `NotFound` when the name is unknown
        or a document is missing; layers may be missing, see `missing`.
        """
        found = self._digest_of(name_or_digest)
        return self._image(found, platform or manifest.host_platform(), self._names.read())

    def missing(
        self, manifest_digest: str, *, platform: manifest.Platform | None = None
    ) -> tuple[manifest.Descriptor, ...]:
        """The config and layers of a stored manifest that this store still lacks, each once, in order.

        A missing blob is announced with its size, as `writer` wants it. For an index: the manifest for the platform,
        and once that is here, what that lacks. `NotFound` when the document itself is not stored.
        """
        digest = manifest_digest
        for _ in range(_MAX_INDEX_DEPTH):
            found = self._load(digest)
            if isinstance(found, manifest.Manifest):
                wanted = {entry.digest: entry for entry in (found.config, *found.layers)}
                return tuple(entry for entry in wanted.values() if not self.has(entry.digest))
            entry = found.choose(platform or manifest.host_platform(), what=f"index {digest}")
            if not self.has(entry.digest):
                return (entry,)
            digest = entry.digest
        raise _too_deep(manifest_digest)

    def tag(self, name: str, digest: str) -> image.Image:
        """Give a complete image a name, taking the name from whatever had it."""
        ref = reference.parse(name)
        if ref.digest not in {None, digest}:
            raise errors.InvalidReference(f"image reference {name!r:.300} pins another digest than {digest}")
        with self.hold():
            lacking = self.missing(digest)
            if lacking:
                raise errors.NotFound(f"image {digest} cannot be named {ref}: blob {lacking[0].digest} is missing")
            self.resolve(digest)  # a config that does not fit its manifest gets no name
            self._names.put(ref.tagged, self._describe(digest))
        return self.resolve(digest)

    def untag(self, name: str) -> None:
        """Forget a name; the blobs stay until `prune`. `NotFound` when there is no such name."""
        self._names.drop(reference.parse(name).tagged)

    def lookup(self, name: str) -> str | None:
        """The digest that the name stands for, of a manifest or of an index; None when there is no such name."""
        entry = self._names.read().get(reference.parse(name).tagged)
        return entry.digest if entry else None

    def remove(self, name: str, *, keep: Iterable[str] = (), keep_layers: Iterable[str] = ()) -> collect.Pruned:
        """Forget a name and prune; `keep` and `keep_layers` as there."""
        self.untag(name)
        return self.prune(keep, keep_layers)

    def list(self) -> tuple[image.Image, ...]:
        """All named images, by name; one with several names stands once."""
        entries = self._names.read()
        platform = manifest.host_platform()
        digests_by_name = {entries[name].digest: None for name in sorted(entries)}
        return tuple(self._image(digest, platform, entries) for digest in digests_by_name)

    # Layers and collection --------------------------------------------------------------------------------------------

    def layer_path(self, chain_id: str) -> Path:
        """Where the layer of this chain id is unpacked, once it is; use `images.unpack.unpack` to make it so."""
        return self.layers / digests.hex_of(chain_id) / "diff"

    @contextlib.contextmanager
    def layer_lock(self, chain_id: str, *, timeout_s: float) -> Iterator[int]:
        path = self._locks / f"layer-{digests.hex_of(chain_id)}"
        with locks.held(path, timeout_s=timeout_s, what=f"layer {chain_id}") as fd:
            yield fd

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep `prune` away while blobs are added that nothing names yet."""
        with locks.held(self._locks / "gc", shared=True, timeout_s=_LOCK_TIMEOUT_S, what=f"image store {self.root}"):
            yield

    def prune(self, keep: Iterable[str] = (), keep_layers: Iterable[str] = ()) -> collect.Pruned:
        """Remove every blob and unpacked layer that no name, no manifest in `keep` and no `keep_layers` reaches.

        `keep` are digests of manifests and `keep_layers` chain ids: what runs, or is about to. Never call it inside
        `hold()`, which it waits for.
        """
        gc = locks.held(self._locks / "gc", timeout_s=_PRUNE_TIMEOUT_S, what=f"image store {self.root}")
        with blobs.storage_errors(f"prune of {self.root}"), scratch.folder(self.tmp) as trash, gc:
            roots = [*(entry.digest for entry in self._names.read().values()), *keep]
            kept = collect.mark(roots, keep_layers, load=self._load, config_of=self._config_of, has=self.has)
            swept = collect.sweep(kept, blobs=self._blobs, layers=self.layers, trash=trash.path)
            for path in self._locks.glob("layer-*"):
                path.unlink()  # whoever holds one is inside `hold()`, so nobody does
            scratch.sweep(self.tmp)
        return swept

    # Inside -----------------------------------------------------------------------------------------------------------

    def _blob_path(self, digest: str) -> Path:
        return self._blobs / digests.hex_of(digest)

    def _drop_damaged(self, digest: str) -> NoReturn:
        self._blob_path(digest).unlink(missing_ok=True)
        raise errors.DigestMismatch(
            f"blob {digest} in {self.root} was damaged on the disk and is removed; import or fetch its image again"
        )

    @contextlib.contextmanager
    def _finding(self, digest: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise errors.NotFound(f"blob {digest} is not in {self.root}; import or fetch its image") from error

    def _digest_of(self, name_or_digest: str) -> str:
        if digests.is_digest(name_or_digest):
            return name_or_digest
        ref = reference.parse(name_or_digest)
        if ref.digest is not None:
            return ref.digest
        entry = self._names.read().get(ref.tagged)
        if entry is None:
            raise errors.NotFound(f"image {ref} is not in {self.root}; import it (orchctl image import) or fetch it")
        return entry.digest

    def _image(
        self, digest: str, platform: manifest.Platform, entries: Mapping[str, manifest.Descriptor]
    ) -> image.Image:
        parts = self._parts(digest, platform)
        layers = zip(parts.manifest.layers, parts.config.diff_ids, strict=True)
        return image.Image(
            names=tuple(sorted(name for name, entry in entries.items() if entry.digest in {digest, parts.digest})),
            digest=parts.digest,
            config_digest=parts.manifest.config.digest,
            platform=parts.config.platform,
            config=parts.config.config,
            layers=tuple(image.layer(entry, diff_id) for entry, diff_id in layers),
        )

    def _load(self, digest: str) -> manifest.Manifest | manifest.Index:
        return manifest.parse(self.read_document(digest), what=f"manifest {digest}")

    def _config_of(self, found: manifest.Manifest) -> image.ConfigDocument:
        digest = found.config.digest
        config = image.parse_config(self.read_document(digest), what=f"config {digest}")
        if len(config.diff_ids) != len(found.layers):
            counts = f"{len(found.layers)} layers in the manifest, {len(config.diff_ids)} diff ids in the config"
            raise errors.InvalidImage(f"config {digest}: rootfs.diff_ids: {counts}; build or fetch the image again")
        return config

    def _parts(self, digest: str, platform: manifest.Platform) -> _Parts:
        for _ in range(_MAX_INDEX_DEPTH):
            found = self._load(digest)
            if isinstance(found, manifest.Manifest):
                return _Parts(digest=digest, manifest=found, config=self._config_of(found))
            digest = found.choose(platform, what=f"index {digest}").digest
        raise _too_deep(digest)

    def _describe(self, digest: str) -> manifest.Descriptor:
        media_type = self._load(digest).media_type
        return manifest.Descriptor(media_type=media_type, digest=digest, size_bytes=self.size_bytes(digest))


def _too_deep(digest: str) -> errors.LimitExceeded:
    return errors.LimitExceeded(
        f"index {digest}: indexes nested deeper than {_MAX_INDEX_DEPTH}; name one of its images"
    )

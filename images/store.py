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
import os
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from images import (
    blobs,
    collect,
    disk,
    documents,
    errors,
    image,
    layout,
    locks,
    manifest,
    names,
    reference,
    scratch,
    stored_documents,
    sweep,
)
from images import digest as digests

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_LOCK_TIMEOUT_S = 30.0
# A person's prune waits this long for imports and pulls in progress; they may take minutes.
_PRUNE_TIMEOUT_S = 60.0


class ImageStore:
    """A store below one folder; opening it makes what is missing and sweeps what a crash left."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.tmp = self.root / "tmp"
        self.layers = self.root / "layers"
        self._blobs = self.root / "blobs" / "sha256"
        self._locks = self.root / "locks"
        with disk.storage_errors(f"opening the image store {root}"):
            for folder in (self.root, self._blobs.parent, self._blobs, self.layers, self.tmp, self._locks):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.sweep(self.tmp)
            self._check_layout()
            self._names = names.Names(self.root / layout.INDEX, lock=self._locks / "names", area=self.tmp)
        self._documents = stored_documents.StoredDocuments(has=self.has, read=self.read_document)

    def _check_layout(self) -> None:
        marker = self.root / layout.MARKER
        if not marker.exists():
            blobs.replace_file(marker, layout.MARKER_BYTES, self.tmp)
        layout.check_marker(documents.read_bounded(marker), what=str(marker))

    # Blobs ----------------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool:
        with disk.storage_errors(f"looking for blob {digest} in {self.root}"):
            return self._blob_path(digest).exists()

    def size_bytes(self, digest: str) -> int:
        with self._finding(digest):
            return self._blob_path(digest).stat().st_size

    def blobs_starting_with(self, figures: str) -> Sequence[str]:
        """The digests of blobs that begin with these hex figures, in order."""
        assert figures.isalnum(), "figures of a digest, never a pattern"
        return sorted(digests.PREFIX + path.name for path in self._blobs.glob(f"{figures}*"))

    def documents(self) -> Sequence[str]:
        """The digests of blobs that look like JSON objects, as manifests do, in order."""
        with disk.storage_errors(f"looking through {self._blobs}"):
            return sorted(
                digests.PREFIX + path.name for path in self._blobs.iterdir() if documents.looks_like_one(path)
            )

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

    def adopt(self, path: Path, digest: str, size: int) -> None:
        """Take a finished file of this file system in as a blob; it is gone from `path` then, unless it is another."""
        blobs.adopt(path, self._blobs, digest=digest, size_bytes=size)

    def read_document(self, digest: str) -> bytes:
        """A manifest, index or config: bounded, and compared with its digest again."""
        with self._finding(digest), self.open(digest) as file:
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
        return self._documents.image(found, platform or manifest.host_platform(), self._names.read())

    def missing(
        self, manifest_digest: str, *, platform: manifest.Platform | None = None
    ) -> tuple[manifest.Descriptor, ...]:
        """The config and layers of a stored manifest that this store still lacks, each once, in order.

        A missing blob is announced with its size, as `writer` wants it. For an index: the manifest for the platform,
        and once that is here, what that lacks. `NotFound` when the document itself is not stored.
        """
        return self._documents.missing(manifest_digest, platform or manifest.host_platform())

    def reached(self, digest: str) -> frozenset[str]:
        """The blobs that an image is made of, for all its platforms, as far as they are stored."""
        return self._reach([digest]).blobs

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
            self.touch(digest)
            self._names.put(ref.tagged, self._describe(digest))
        return self.resolve(digest)

    def untag(self, name: str) -> None:
        """Forget a name; the blobs stay until `prune`. `NotFound` when there is no such name."""
        self._names.drop(reference.parse(name).tagged)

    def names(self) -> Mapping[str, str]:
        """Every full name with the digest of its manifest or index."""
        return {name: entry.digest for name, entry in self._names.read().items()}

    def list(self) -> tuple[image.Image, ...]:
        """All named images, by name; one with several names stands once. What cannot be read is told by `broken`."""
        return self._documents.images(self._names.read())

    def broken(self) -> Mapping[str, errors.ImageError]:
        """Names whose image cannot be read, because a document is missing or damaged, each with the reason."""
        unreadable = {
            digest: why
            for digest, why in self._documents.readable(self._names.read()).items()
            if isinstance(why, errors.ImageError)
        }
        return {name: unreadable[digest] for name, digest in sorted(self.names().items()) if digest in unreadable}

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

    def touch(self, digest: str) -> None:
        """Note that an image is used now: what was not used for long makes room first."""
        with self._finding(digest):
            os.utime(self._blob_path(digest))

    def stored(self, keep: Collection[str] = (), *, also: Iterable[str] = ()) -> Sequence[collect.Stored]:
        """Every named image with what it takes, as `images.collect` wants it; and those of the digests in `also`.

        Those in `keep` are marked so, and an index of which one is.
        """
        names_by_digest: dict[str, list[str]] = {}
        for name, entry in sorted(self._names.read().items()):
            names_by_digest.setdefault(entry.digest, []).append(name)
        for digest in also:
            names_by_digest.setdefault(digest, [])
        return [
            collect.Stored(
                digest=digest,
                names=tuple(names_),
                used_at_s=self._used_at_s(digest),
                parts=self._parts_bytes(digest),
                is_kept=any(each in keep for each in (digest, *self._inside(digest))),
            )
            for digest, names_ in names_by_digest.items()
            if self.has(digest)
        ]

    def disk(self) -> collect.Disk:
        """How full the file system below the store is, as far as the store may fill it."""
        with disk.storage_errors(f"measuring the disk of {self.root}"):
            found = os.statvfs(self.root)
        return collect.Disk(total_bytes=found.f_blocks * found.f_frsize, free_bytes=found.f_bavail * found.f_frsize)

    def used_bytes(self) -> int:
        """What the blobs take. Blocks."""
        with disk.storage_errors(f"measuring the blobs of {self.root}"):
            return disk.folder_bytes(self._blobs)

    def prune(
        self,
        keep: Iterable[str] = (),
        keep_layers: Iterable[str] = (),
        keep_blobs: Iterable[str] = (),
        *,
        forget: collect.Policy = collect.nothing,
        dry_run: bool = False,
    ) -> sweep.Pruned:
        """Remove every blob and unpacked layer that no name, no manifest in `keep` and no `keep_layers` reaches.

        `keep` are digests of manifests and `keep_layers` chain ids: what runs, or is about to. `keep_blobs` stay
        whatever they are: parts of an image that is still coming. `forget` is a policy of
        `images.collect`: the images that it chooses lose their names first. With `dry_run` nothing is removed, and the
        answer is what would be. Never call it inside `hold()`, which it waits for.
        """
        kept_roots = frozenset(keep)
        with self._collecting() as trash:
            images = self.stored(kept_roots)
            forgotten = frozenset(forget(images)) - {image.digest for image in images if image.is_kept}
            going = tuple(name for image in images if image.digest in forgotten for name in image.names)
            roots = {entry.digest for name, entry in self._names.read().items() if name not in going} | kept_roots
            reached = self._reach(roots, keep_layers)
            reached = replace(reached, blobs=reached.blobs | frozenset(keep_blobs))
            found = sweep.doomed(reached, blobs=self._blobs, layers=self.layers)
            if not dry_run:
                self._names.drop_all(going)
                self._sweep(found, trash)
        return sweep.summary(found, going)

    def forget(self, names_: Iterable[str], digests_: Iterable[str] = (), *, keep: Iterable[str] = ()) -> sweep.Pruned:
        """Remove these names, and of what they and the digests reach what no other name and no `keep` needs.

        `NotFound` when there is no such name, and then none is removed. Never call it inside `hold()`.
        """
        wanted = tuple(reference.parse(name).tagged for name in names_)
        with self._collecting() as trash:
            entries = self._names.read()
            going = [*digests_, *(entries[name].digest for name in wanted if name in entries)]
            roots = {entry.digest for name, entry in entries.items() if name not in wanted} | set(keep)
            found = sweep.doomed(self._reach(roots), blobs=self._blobs, layers=self.layers, among=self._reach(going))
            self._names.drop_all(wanted)
            self._sweep(found, trash)
        return sweep.summary(found, wanted)

    # Inside -----------------------------------------------------------------------------------------------------------

    def _blob_path(self, digest: str) -> Path:
        return self._blobs / digests.hex_of(digest)

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[Path]:
        """Nobody adds anything meanwhile; what is moved into the folder is removed once others may go on."""
        gc = locks.held(self._locks / "gc", timeout_s=_PRUNE_TIMEOUT_S, what=f"image store {self.root}")
        with disk.storage_errors(f"prune of {self.root}"), scratch.folder(self.tmp) as trash, gc:
            yield trash.path

    def _sweep(self, found: sweep.Doomed, trash: Path) -> None:
        sweep.sweep(found, trash=trash)
        for path in (*self._locks.glob("layer-*"), *self._locks.glob("blob-*")):
            path.unlink()  # whoever holds one is inside `hold()`, so nobody does
        scratch.sweep(self.tmp)

    def _reach(self, roots: Iterable[str], keep_layers: Iterable[str] = ()) -> sweep.Reached:
        return sweep.mark(
            roots, keep_layers, load=self._documents.load_any, config_of=self._documents.config_of, has=self.has
        )

    def _used_at_s(self, digest: str) -> float:
        """The time of a manifest's file, which `touch` sets; an index was used when one of its images was."""
        with self._finding(digest):
            every = (digest, *self._inside(digest))
            return max(self._blob_path(each).stat().st_mtime for each in every if self.has(each))

    def _inside(self, digest: str) -> Sequence[str]:
        """The manifests and indexes that an index lists; nothing for what is no index."""
        found = sweep.readable(self._documents.load_any, digest)
        return [entry.digest for entry in found.documents] if isinstance(found, manifest.Index) else []

    def _parts_bytes(self, digest: str) -> Mapping[str, int]:
        """The blobs and the unpacked layers that an image leads to; those that are not here take nothing."""
        reached = self._reach([digest])
        blobs_ = {each: self.size_bytes(each) for each in reached.blobs if self.has(each)}
        folders = ((chain_id, self.layer_path(chain_id).parent) for chain_id in reached.layers)
        return blobs_ | {
            f"unpacked {chain_id}": sweep.unpacked_bytes(folder) for chain_id, folder in folders if folder.exists()
        }

    def _drop_damaged(self, digest: str) -> NoReturn:
        self._blob_path(digest).unlink(missing_ok=True)
        raise errors.DigestMismatch(
            f"blob {digest} in {self.root} was damaged on the disk and is removed; import or fetch its image again"
        )

    @contextlib.contextmanager
    def _finding(self, digest: str) -> Iterator[None]:
        with disk.storage_errors(f"reading blob {digest} in {self.root}"):
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

    def _load(self, digest: str) -> manifest.Manifest | manifest.Index:
        return self._documents.load(digest)

    def _describe(self, digest: str) -> manifest.Descriptor:
        media_type = self._load(digest).media_type
        return manifest.Descriptor(media_type=media_type, digest=digest, size_bytes=self.size_bytes(digest))

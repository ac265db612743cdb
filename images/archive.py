"""Bring images in: `docker save` archives, OCI layouts (tar or folder), and plain root file system tars.

Rules. What a file is comes from its content, not from its name. Blobs keep their bytes, so the digests of layers and
configs stay what they were. And an archive that is refused leaves no name behind; blobs that came before the refusal
go with the next `prune`.

A tar is listed in one pass and its members are then read where they lie. A pipe is first copied below `tmp/`, and so is
what a compressed Docker or OCI archive decompresses to.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from images import compression, disk, errors, formats, manifest, members, progress, reference, rootfs, scratch, streams
from images.image import Config, Image
from images.manifest import Descriptor, Platform

if TYPE_CHECKING:
    from images.store import ImageStore

_DEFAULT_LIMITS = compression.Limits()
_SILENT = progress.Silent()


def import_archive(
    store: ImageStore,
    file: BinaryIO | Path,
    *,
    name: str | None = None,
    select: str | None = None,
    config: Config | None = None,
    platform: Platform | None = None,
    limits: compression.Limits = _DEFAULT_LIMITS,
    watcher: progress.Progress = _SILENT,
) -> Image:
    """Import the one image of an archive and name it: by `name`, or else as the archive does.

    With several images in it, `select` says which, in the archive's own words. `config` is for a root file system tar,
    which has none of its own. `platform` chooses from indexes, and describes a root file system (default: this
    machine's). An image that nobody names is returned with `names == ()`, and only its digest finds it.
    """
    if name is not None:
        reference.parse(name)  # before the work, not after it
    importer = _Importer(store, platform or manifest.host_platform(), config, limits, watcher)
    with store.hold(), contextlib.ExitStack() as stack:
        chosen = _choose(importer.read(file, stack), select, _title(file))
        names = chosen.names if name is None else (name,)
        return _tag(store, {chosen.digest: names})[0]


def import_all(
    store: ImageStore,
    file: BinaryIO | Path,
    *,
    platform: Platform | None = None,
    limits: compression.Limits = _DEFAULT_LIMITS,
    watcher: progress.Progress = _SILENT,
) -> tuple[Image, ...]:
    """Import every image of an archive under the names that it gives."""
    importer = _Importer(store, platform or manifest.host_platform(), None, limits, watcher)
    with store.hold(), contextlib.ExitStack() as stack:
        found = importer.read(file, stack)
        return _tag(store, {image.digest: image.names for image in found})


def _choose(found: list[formats.Found], select: str | None, title: str) -> formats.Found:
    labels = ", ".join(label for image in found for label in image.labels or (image.digest,))
    chosen = [image for image in found if select is None or _is_called(image, select)]
    if not chosen:
        raise errors.NotFound(f"{title} holds no image {select!r:.200}; it holds {labels}")
    if len(chosen) > 1:
        raise errors.InvalidReference(f"{title} holds {len(chosen)} images ({labels}); select one of them")
    return chosen[0]


def _is_called(image: formats.Found, select: str) -> bool:
    """Literally, by digest, or by another way of writing the same name."""
    if select in {image.digest, *image.labels}:
        return True
    try:
        wanted = reference.parse(select).tagged
        return any(reference.parse(name).tagged == wanted for name in image.names)
    except errors.InvalidReference:
        return False


def _tag(store: ImageStore, names: dict[str, tuple[str, ...]]) -> tuple[Image, ...]:
    for digest in names:
        store.resolve(digest)
    for name in (name for group in names.values() for name in group):
        reference.parse(name)
    # From here on nothing is wrong with the archive: all of its names are given, or none was.
    for digest, group in names.items():
        for name in group:
            store.tag(name, digest)
    return tuple(
        replace(store.resolve(digest), names=tuple(reference.parse(name).tagged for name in group))
        for digest, group in names.items()
    )


def _title(file: BinaryIO | Path) -> str:
    name = file if isinstance(file, Path) else getattr(file, "name", None)
    return f"archive {name if isinstance(name, str | Path) else 'stream'}"


class _Importer:
    """The way from a file to manifests in the store."""

    def __init__(
        self,
        store: ImageStore,
        platform: Platform,
        config: Config | None,
        limits: compression.Limits,
        watcher: progress.Progress,
    ) -> None:
        self._store = store
        self._platform = platform
        self._config = config
        self._limits = limits
        self._watcher = watcher

    def read(self, file: BinaryIO | Path, stack: contextlib.ExitStack) -> list[formats.Found]:
        what = _title(file)
        if isinstance(file, Path):
            if file.is_dir():
                return self._read_members(stack.enter_context(members.folder(file)))
            try:
                file = stack.enter_context(file.open("rb"))
            except OSError as error:
                raise errors.NotFound(f"{what}: {error.strerror}; name a file that can be read") from error
        stored = self._seekable(file, stack, what)
        start, kind = stored.tell(), compression.peek(stored, what=what)
        scan = self._scan(stored, kind, what)
        stored.seek(start)
        if _is_image_archive(scan):
            self._check_listing(scan, what)
            plain = stored if kind == "none" else self._plain(stored, kind, stack, what)
            return self._read_members(members.TarMembers(plain, what=what, listing=scan.listing))
        return [self._rootfs(stored, kind, scan, what)]

    # Bytes ------------------------------------------------------------------------------------------------------------

    def _seekable(self, file: BinaryIO, stack: contextlib.ExitStack, what: str) -> BinaryIO:
        return file if file.seekable() else self._spool(file, stack, what)

    def _plain(self, file: BinaryIO, kind: compression.Kind, stack: contextlib.ExitStack, what: str) -> BinaryIO:
        source = self._counted(file, what, "decompressing")
        return self._spool(compression.decompressed(source, kind, what=what), stack, what)

    def _spool(self, source: streams.Source, stack: contextlib.ExitStack, what: str) -> BinaryIO:
        item = stack.enter_context(scratch.file(self._store.tmp))
        size_bytes = 0
        with disk.storage_errors(f"{what}: copying it below {self._store.tmp}"):
            while data := source.read(streams.CHUNK_BYTES):
                size_bytes += len(data)
                if size_bytes > self._limits.max_bytes:
                    raise errors.LimitExceeded(f"{what}: larger than {self._limits.max_bytes} bytes; raise the bound")
                streams.write_all(item.fd, data)
            os.lseek(item.fd, 0, os.SEEK_SET)
        return stack.enter_context(os.fdopen(os.dup(item.fd), "rb"))

    def _scan(self, file: BinaryIO, kind: compression.Kind, what: str) -> members.Scan:
        """The list of what is in it; contents are passed over where nothing has to be decompressed."""
        if kind == "none":
            return members.scan_plain(file, limits=self._limits, what=what)
        stored_bytes = _rest_bytes(file)
        source = compression.decompressed(self._counted(file, what, "reading"), kind, what=what)
        return members.scan(source, stored_bytes=stored_bytes, limits=self._limits, what=what)

    def _counted(self, file: BinaryIO, what: str, doing: str) -> progress.Counted:
        return progress.Counted(file, self._watcher, what.rpartition("/")[2], doing, _rest_bytes(file))

    def _check_listing(self, scan: members.Scan, what: str) -> None:
        if scan.repeated is not None:
            raise errors.InvalidImage(f"{what}: entry {scan.repeated!r:.200} stands twice; save the image again")
        if scan.entries > members.MAX_MEMBERS:
            raise errors.LimitExceeded(f"{what}: {scan.entries} members; the bound is {members.MAX_MEMBERS}")

    # Formats ----------------------------------------------------------------------------------------------------------

    def _read_members(self, archive: members.Members) -> list[formats.Found]:
        if self._config is not None:
            raise errors.InvalidReference(
                f"{archive.what}: has configs of its own; overrides are for root file systems"
            )
        return formats.read(self._store, archive, self._platform, self._watcher)

    def _rootfs(self, file: BinaryIO, kind: compression.Kind, scan: members.Scan, what: str) -> formats.Found:
        if scan.entries == 0:
            raise errors.InvalidImage(f"{what}: holds no files; name a tar of a root file system")
        with self._store.writer() as blob:
            blob.copy(self._counted(file, what, "importing"))
        self._watcher.step(what.rpartition("/")[2], "done", blob.size_bytes, blob.size_bytes)
        layer = Descriptor(media_type=manifest.layer_type(kind), digest=blob.digest, size_bytes=blob.size_bytes)
        # What is not compressed is its own diff id.
        image = rootfs.add_image(
            self._store,
            (layer,),
            (scan.diff_id or blob.digest,),
            self._config or Config(),
            None,
            platform=self._platform,
        )
        return formats.Found(labels=(), digest=image.digest)


def _rest_bytes(file: BinaryIO) -> int:
    """From the position to the end."""
    start = file.tell()
    size_bytes = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    return size_bytes


def _is_image_archive(scan: members.Scan) -> bool:
    return any(name in scan.listing for name in formats.MARKERS)

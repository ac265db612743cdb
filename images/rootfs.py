"""Make images from files: a layer from entries, and an image from one layer.

The rule: the same entries give the same digest everywhere. Entries are sorted, times fixed, owners explicit, and the
layer is stored uncompressed, because compressed bytes differ between versions of zlib.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from images import errors, manifest, streams, tarwrite
from images.image import Config, ConfigDocument, Image
from images.manifest import Descriptor, Manifest, Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from images.store import ImageStore

_DEFAULT_CONFIG = Config()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file with its content, or with the path of a file on this machine to take it from."""

    path: str
    content: bytes | Path
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A folder; the parents of other entries need no entry of their own."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink:
    """A symbolic link; `target` is written as it stands."""

    path: str
    target: str


Entry = File | Directory | Symlink


def write_layer(entries: Iterable[Entry], sink: streams.Sink, *, mtime_s: int = 0) -> None:
    """Write a layer's tar; a path that stands twice, or leaves the root, is refused with `InvalidImage`."""
    members = _with_parents(entries)
    for path in sorted(members):
        _write_entry(sink, path, members[path], mtime_s)
    tarwrite.write_end(sink)


def tree_to_layer(folder: Path, sink: streams.Sink, *, mtime_s: int = 0) -> None:
    """Write the tree below `folder` as a layer: modes and links as they are, all owned by root, times fixed."""
    write_layer(_scan(folder), sink, mtime_s=mtime_s)


def build_image(
    store: ImageStore,
    entries: Iterable[Entry],
    config: Config = _DEFAULT_CONFIG,
    name: str | None = None,
    *,
    platform: Platform | None = None,
) -> Image:
    """Make an image of one layer from explicit entries; without a `name` only its digest names it."""
    with store.hold():
        with store.writer() as blob:
            write_layer(entries, blob)
        layer = Descriptor(media_type=manifest.OCI_LAYER, digest=blob.digest, size_bytes=blob.size_bytes)
        return add_image(store, (layer,), (blob.digest,), config, name, platform=platform)


def add_image(
    store: ImageStore,
    layers: tuple[Descriptor, ...],
    diff_ids: tuple[str, ...],
    config: Config,
    name: str | None,
    *,
    platform: Platform | None = None,
) -> Image:
    """Write config and manifest for layers that are stored already. Call it inside `store.hold()`."""
    document = ConfigDocument(
        platform=platform or manifest.host_platform(), diff_ids=diff_ids, config=config
    ).as_bytes()
    config_entry = Descriptor(
        media_type=manifest.OCI_CONFIG, digest=store.put_bytes(document), size_bytes=len(document)
    )
    body = Manifest(media_type=manifest.OCI_MANIFEST, config=config_entry, layers=layers)
    digest = store.put_bytes(body.as_bytes())
    return store.tag(name, digest) if name is not None else store.resolve(digest)


def _with_parents(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by clean path, with the folders that they imply."""
    members: dict[str, Entry] = {}
    for entry in entries:
        path = _clean(entry.path)
        if path in members:
            raise errors.InvalidImage(f"entry {entry.path!r} stands twice; list each path once")
        members[path] = entry
    for path in list(members):
        parent = path.rpartition("/")[0]
        while parent:
            found = members.setdefault(parent, Directory(path=parent))
            if not isinstance(found, Directory):
                raise errors.InvalidImage(f"entry {path!r} lies below {parent!r}, which is no folder")
            parent = parent.rpartition("/")[0]
    return members


def _clean(path: str) -> str:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts or ".." in parts or "\0" in path:
        raise errors.InvalidImage(f"entry {path!r}: expected a path inside the image, without '..'")
    return "/".join(parts)


def _write_entry(sink: streams.Sink, path: str, entry: Entry, mtime_s: int) -> None:
    info = tarfile.TarInfo(path)
    info.mtime = mtime_s
    if isinstance(entry, Symlink):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
        tarwrite.write_member(sink, info)
        return
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    if isinstance(entry, Directory):
        info.type = tarfile.DIRTYPE
        tarwrite.write_member(sink, info)
        return
    with _content(entry) as file:
        tarwrite.write_file(sink, info, file)


def _content(entry: File) -> BinaryIO:
    if isinstance(entry.content, bytes):
        return io.BytesIO(entry.content)
    return entry.content.open("rb")


def _scan(folder: Path) -> Iterable[Entry]:
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            yield _scanned(path, str(path.relative_to(folder)))


def _scanned(path: Path, name: str) -> Entry:
    found = path.lstat()
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        return Symlink(path=name, target=str(path.readlink()))
    if stat.S_ISDIR(found.st_mode):
        return Directory(path=name, mode=mode)
    if stat.S_ISREG(found.st_mode):
        return File(path=name, content=path, mode=mode)
    raise errors.InvalidImage(f"{path} is no file, folder or link; remove it from the tree")

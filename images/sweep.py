"""Mark and sweep: what no name reaches is removed.

The rule: the caller holds the store's `gc` lock exclusively, so nothing is added between mark and sweep.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from images import digest as digests
from images import errors, image, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
U = TypeVar("U")

SIZE_FILE = "size"
"""Beside an unpacked layer: how many bytes it has, as text. What made it knows; counting again takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Digests of blobs, and chain ids of layers, that some roots lead to."""

    blobs: frozenset[str]
    layers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """Files of blobs and folders of layers that are to go, each with its bytes."""

    blobs: tuple[tuple[Path, int], ...]
    layers: tuple[tuple[Path, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed, or would be: names, counts, the bytes of the blobs and those of the unpacked layers."""

    names: tuple[str, ...] = ()
    blobs: int = 0
    layers: int = 0
    size_bytes: int = 0
    unpacked_bytes: int = 0


def mark(
    roots: Iterable[str],
    keep_layers: Iterable[str] = (),
    *,
    load: Callable[[str], manifest.Manifest | manifest.Index],
    config_of: Callable[[manifest.Manifest], image.ConfigDocument],
    has: Callable[[str], bool],
) -> Reached:
    """Follow indexes to manifests to configs and layers; what is not stored is passed by.

    Strangers write these documents, so what does not read as one is no error here: nobody's image must keep the room
    of all others.
    """
    todo = [digests.check(root, what="image to keep") for root in roots]
    layers = {digests.check(chain_id, what="layer to keep") for chain_id in keep_layers}
    # Two sets: what one image calls a layer may be another one's manifest, and is followed as that all the same.
    followed: set[str] = set()
    blobs: set[str] = set()
    while todo:
        digest = todo.pop()
        if digest in followed or not has(digest):
            continue
        followed.add(digest)
        found = readable(load, digest)
        if isinstance(found, manifest.Index):
            blobs.update(entry.digest for entry in found.manifests)
            todo.extend(entry.digest for entry in found.documents)
        elif found is not None:
            blobs.update(entry.digest for entry in (found.config, *found.layers))
            config = readable(config_of, found) if has(found.config.digest) else None
            layers.update(digests.chain_ids(config.diff_ids) if config else ())
    return Reached(blobs=frozenset(followed | blobs), layers=frozenset(layers))


def readable(read: Callable[[T], U], of: T) -> U | None:
    """None for what somebody calls a manifest or a config and is none: it leads nowhere, and is kept."""
    try:
        return read(of)
    except errors.DigestMismatch:
        raise  # it was one, and the disk damaged it
    except errors.InvalidImage:
        return None


def doomed(kept: Reached, *, blobs: Path, layers: Path, among: Reached | None = None) -> Doomed:
    """What lies below the two folders and is not kept; of that, only what is `among` some, if these are given."""

    def goes(path: Path, kept_: frozenset[str], among_: frozenset[str] | None) -> bool:
        digest = digests.PREFIX + path.name
        return digest not in kept_ and (among_ is None or digest in among_)

    return Doomed(
        blobs=tuple(
            (path, path.stat().st_size)
            for path in blobs.iterdir()
            if goes(path, kept.blobs, among.blobs if among else None)
        ),
        layers=tuple(
            (path, unpacked_bytes(path))
            for path in layers.iterdir()
            if goes(path, kept.layers, among.layers if among else None)
        ),
    )


def sweep(found: Doomed, *, trash: Path) -> None:
    """Remove the blobs, and move the layers into `trash`.

    A move, because half a removed layer must never be found under its name, and because the removal of a large tree
    can then wait until the lock is free again.
    """
    for path, _ in found.blobs:
        path.unlink(missing_ok=True)
    for path, _ in found.layers:
        path.rename(trash / path.name)


def summary(found: Doomed, names: tuple[str, ...] = ()) -> Pruned:
    return Pruned(
        names=names,
        blobs=len(found.blobs),
        layers=len(found.layers),
        size_bytes=sum(size for _, size in found.blobs),
        unpacked_bytes=sum(size for _, size in found.layers),
    )


def unpacked_bytes(folder: Path) -> int:
    """The bytes of an unpacked layer: as noted when it was made, or else counted."""
    try:
        return int((folder / SIZE_FILE).read_text())
    except (FileNotFoundError, ValueError):
        files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
        return sum(path.lstat().st_size for path in files)

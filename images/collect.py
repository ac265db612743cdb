"""Mark and sweep: what no name reaches is removed.

The rule: the caller holds the store's `gc` lock exclusively, so nothing is added between mark and sweep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import digest as digests
from images import image, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Digests of blobs, and chain ids of layers, that stay."""

    blobs: frozenset[str]
    layers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed: counts, and the bytes of the blobs."""

    blobs: int = 0
    layers: int = 0
    size_bytes: int = 0


def mark(
    roots: Iterable[str],
    keep_layers: Iterable[str],
    *,
    load: Callable[[str], manifest.Manifest | manifest.Index],
    config_of: Callable[[manifest.Manifest], image.ConfigDocument],
    has: Callable[[str], bool],
) -> Kept:
    """Follow indexes to manifests to configs and layers; what is not stored is passed by."""
    todo = [digests.check(root, what="image to keep") for root in roots]
    layers = {digests.check(chain_id, what="layer to keep") for chain_id in keep_layers}
    seen: set[str] = set()
    while todo:
        digest = todo.pop()
        if digest in seen or not has(digest):
            continue
        seen.add(digest)
        found = load(digest)
        if isinstance(found, manifest.Index):
            todo.extend(entry.digest for entry in found.manifests)
            continue
        seen.update(entry.digest for entry in (found.config, *found.layers))
        if has(found.config.digest):
            layers.update(digests.chain_ids(config_of(found).diff_ids))
    return Kept(blobs=frozenset(seen), layers=frozenset(layers))


def sweep(kept: Kept, *, blobs: Path, layers: Path, trash: Path) -> Pruned:
    """Remove the other blobs, and move the other layers into `trash`.

    A move, because half a removed layer must never be found under its name, and because the removal of a large tree
    can then wait until the lock is free again.
    """
    removed_blobs, size_bytes = _sweep_blobs(kept, blobs)
    return Pruned(blobs=removed_blobs, layers=_sweep_layers(kept, layers, trash), size_bytes=size_bytes)


def _sweep_blobs(kept: Kept, folder: Path) -> tuple[int, int]:
    count = size_bytes = 0
    for path in list(folder.iterdir()):
        if digests.PREFIX + path.name not in kept.blobs:
            size_bytes += path.stat().st_size
            path.unlink()
            count += 1
    return count, size_bytes


def _sweep_layers(kept: Kept, folder: Path, trash: Path) -> int:
    count = 0
    for path in list(folder.iterdir()):
        if digests.PREFIX + path.name not in kept.layers:
            path.rename(trash / path.name)
            count += 1
    return count

"""From a digest to an image: the manifests, indexes and configs of a store, read and checked against each other.

The rule: every document is compared with its digest whenever it is read, and a config with its manifest, so an image
that comes out of here is what its digest says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from images import errors, image, manifest
from images.manifest import Descriptor, Index, Manifest, Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from images.image import ConfigDocument, Image


class StoredDocuments:
    """Reads through two functions of a store: whether it has a blob, and a document's bytes."""

    def __init__(self, *, has: Callable[[str], bool], read: Callable[[str], bytes]) -> None:
        self._has = has
        self._read = read

    def load(self, digest: str) -> Manifest | Index:
        return manifest.parse(self._read(digest), what=f"manifest {digest}")

    def load_any(self, digest: str) -> Manifest | Index:
        """What an index may list, also when it is no image."""
        return manifest.parse_any(self._read(digest), what=f"manifest {digest}")

    def config_of(self, found: Manifest) -> ConfigDocument:
        digest = found.config.digest
        config = image.parse_config(self._read(digest), what=f"config {digest}")
        if len(config.diff_ids) != len(found.layers):
            counts = f"{len(found.layers)} layers in the manifest, {len(config.diff_ids)} diff ids in the config"
            raise errors.InvalidImage(f"config {digest}: rootfs.diff_ids: {counts}; build or fetch the image again")
        return config

    def image(self, digest: str, platform: Platform, entries: Mapping[str, Descriptor]) -> Image:
        """The image of a manifest, or of an index for the platform, with those of the names that lead to it."""
        manifest_digest, found = self._manifest(digest, platform)
        config = self.config_of(found)
        layers = zip(found.layers, config.diff_ids, strict=True)
        return image.Image(
            names=_names(entries, {digest, manifest_digest}),
            digest=manifest_digest,
            config_digest=found.config.digest,
            platform=config.platform,
            config=config.config,
            layers=tuple(image.layer(entry, diff_id) for entry, diff_id in layers),
            history=config.history,
        )

    def missing(self, digest: str, platform: Platform) -> tuple[Descriptor, ...]:
        """See `ImageStore.missing`."""
        wanted = digest
        for _ in range(manifest.MAX_INDEX_DEPTH + 1):
            found = self.load(wanted)
            if isinstance(found, Manifest):
                blobs = {entry.digest: entry for entry in (found.config, *found.layers)}
                return tuple(entry for entry in blobs.values() if not self._has(entry.digest))
            entry = found.choose(platform, what=f"index {wanted}")
            if not self._has(entry.digest):
                return (entry,)
            wanted = entry.digest
        raise _too_deep(digest)

    def readable(self, entries: Mapping[str, Descriptor]) -> Mapping[str, Image | errors.ImageError]:
        """For the digest behind each name, in order of names: its image, or why there is none."""
        found: dict[str, Image | errors.ImageError] = {}
        for digest in {entries[name].digest: None for name in sorted(entries)}:
            try:
                found[digest] = self._any_platform(digest, entries)
            except errors.ImageError as error:
                found[digest] = error
        return found

    def images(self, entries: Mapping[str, Descriptor]) -> tuple[Image, ...]:
        """Those that can be read, each once, also when its index has one name and its manifest another."""
        found: dict[str, Image] = {}
        for one in self.readable(entries).values():
            if isinstance(one, image.Image):
                before = found.get(one.digest, one)
                found[one.digest] = replace(one, names=tuple(sorted({*before.names, *one.names})))
        return tuple(found.values())

    def _any_platform(self, digest: str, entries: Mapping[str, Descriptor]) -> Image:
        """The image for this machine, or else the first one of the index that is stored."""
        try:
            return self.image(digest, manifest.host_platform(), entries)
        except errors.NotFound:
            others = [entry for entry in self._inside(digest) if self._has(entry.digest)]
            if not others:
                raise
            first = others[0]
            one = self.image(first.digest, first.platform or manifest.host_platform(), entries)
            return replace(one, names=_names(entries, {digest}))

    def _inside(self, digest: str) -> Sequence[Descriptor]:
        found = self.load(digest)
        return found.images if isinstance(found, Index) else ()

    def _manifest(self, digest: str, platform: Platform) -> tuple[str, Manifest]:
        wanted = digest
        for _ in range(manifest.MAX_INDEX_DEPTH + 1):
            found = self.load(wanted)
            if isinstance(found, Manifest):
                return wanted, found
            wanted = found.choose(platform, what=f"index {wanted}").digest
        raise _too_deep(digest)


def _names(entries: Mapping[str, Descriptor], digests: set[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name, entry in entries.items() if entry.digest in digests))


def _too_deep(digest: str) -> errors.LimitExceeded:
    return errors.LimitExceeded(
        f"index {digest}: indexes nested deeper than {manifest.MAX_INDEX_DEPTH}; name one of its images"
    )

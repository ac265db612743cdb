"""Manifests and indexes (OCI image specification; Docker schema 2) as values.

Two rules. What a document is comes from its content, checked against the media type under which it was announced; one
that is both a manifest and an index is refused. And fields are checked when read: a value that exists is valid.
"""

from __future__ import annotations

import platform as host
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from images import documents, errors

if TYPE_CHECKING:
    from collections.abc import Iterable

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"
"""What a registry is told that we read."""
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
# The compression that each layer type announces; the bytes themselves are checked again when they are read.
LAYER_TYPES = {
    OCI_LAYER: "none",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    DOCKER_LAYER: "none",
    f"{DOCKER_LAYER}.gzip": "gzip",
}
MAX_LAYERS = 500
MAX_INDEX_ENTRIES = 1000
MAX_INDEX_DEPTH = 3
"""So many indexes may stand between a name and a manifest."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Operating system and machine, in Go's words."""

    os: str = "linux"
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def runs(self, image: Platform) -> bool:
        """Whether a machine of this platform runs `image`; a variant that either leaves open fits."""
        same = (self.os, self.architecture) == (image.os, image.architecture)
        return same and (not self.variant or not image.variant or self.variant == image.variant)


def layer_type(compression: str) -> str:
    """The media type of a layer that is compressed as `images.compression` calls it."""
    return OCI_LAYER if compression == "none" else f"{OCI_LAYER}+{compression}"


def host_platform() -> Platform:
    machine = host.machine()
    return Platform(architecture=_MACHINES.get(machine, machine))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A reference to a blob: what it is, which bytes, how many."""

    media_type: str
    digest: str
    size_bytes: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = field(default=())

    def annotation(self, key: str) -> str | None:
        return dict(self.annotations).get(key)

    def as_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}
        if self.platform:
            value["platform"] = {"os": self.platform.os, "architecture": self.platform.architecture}
            if self.platform.variant:
                value["platform"]["variant"] = self.platform.variant
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform: a config and its layers, bottom to top."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    def as_bytes(self) -> bytes:
        return documents.dump(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": self.config.as_json(),
                "layers": [layer.as_json() for layer in self.layers],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several manifests, usually one for each platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]

    @property
    def documents(self) -> tuple[Descriptor, ...]:
        """The entries that are manifests or indexes, whatever of."""
        return tuple(entry for entry in self.manifests if entry.media_type in MANIFEST_TYPES | INDEX_TYPES)

    @property
    def images(self) -> tuple[Descriptor, ...]:
        """The entries that may run somewhere: attestations, which buildx lists for `unknown/unknown`, do not."""
        return tuple(entry for entry in self.documents if not (entry.platform and entry.platform.os == "unknown"))

    def as_bytes(self) -> bytes:
        entries = [entry.as_json() for entry in self.manifests]
        return documents.dump({"schemaVersion": 2, "mediaType": self.media_type, "manifests": entries})

    def choose(self, wanted: Platform, *, what: str) -> Descriptor:
        """The entry for a platform: an exact variant before an open one, the first of equals.

        Without any platform in the index, its only entry. Otherwise `NotFound` that lists what there is.
        """
        images = self.images
        fitting = [entry for entry in images if entry.platform and wanted.runs(entry.platform)]
        if fitting:
            return max(fitting, key=lambda entry: entry.platform == wanted)
        if len(images) == 1 and images[0].platform is None:
            return images[0]
        offered = ", ".join(sorted({str(entry.platform or "unnamed") for entry in images})) or "nothing"
        raise errors.NotFound(f"{what} has no image for {wanted}; it offers {offered}")


class Parser(Protocol):
    """`parse` or `parse_any`."""

    def __call__(self, data: bytes, *, what: str, media_type: str | None = None) -> Manifest | Index: ...


def parse(data: bytes, *, what: str, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index; `media_type` is the one announced with it, where there was one."""
    document = documents.parse(data, what=what)
    found = _media_type(document, media_type)
    if found in INDEX_TYPES:
        return _read_index(document, found)
    return _read_manifest(document, found, configs=CONFIG_TYPES, layers=LAYER_TYPES)


def parse_any(data: bytes, *, what: str, media_type: str | None = None) -> Manifest | Index:
    """The same for what an index may list beside images, such as attestations: its parts are of any type.

    Nothing is to be run or unpacked that was read so; it is kept, sent on and removed with its index.
    """
    document = documents.parse(data, what=what)
    found = _media_type(document, media_type)
    if found in INDEX_TYPES:
        return _read_index(document, found)
    return _read_manifest(document, found, configs=None, layers=None)


def parse_manifest(data: bytes, *, what: str, media_type: str | None = None) -> Manifest:
    value = parse(data, what=what, media_type=media_type)
    if isinstance(value, Index):
        raise errors.InvalidImage(f"{what} is an index of several images; name the manifest of one of them")
    return value


def _media_type(document: documents.Object, announced: str | None) -> str:
    if document.integer("schemaVersion", 1) != 2:
        document.refuse("schemaVersion", "only version 2 is read; convert the image with `skopeo copy`")
    if "manifests" in document and ("layers" in document or "config" in document):
        document.refuse(
            "manifests", "the document is both a manifest and an index; one digest must not mean two images"
        )
    by_content = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    found = document.text("mediaType", announced or by_content)
    if announced is not None and announced != found:
        document.refuse("mediaType", f"is {found!r:.100}, but the document was announced as {announced!r:.100}")
    if found not in (INDEX_TYPES if "manifests" in document else MANIFEST_TYPES):
        document.refuse("mediaType", f"{found!r:.100} does not fit the content, or is not a type that is read")
    return found


def _read_manifest(
    document: documents.Object, media_type: str, *, configs: Iterable[str] | None, layers: Iterable[str] | None
) -> Manifest:
    config = _descriptor(document.child("config"), configs, "an image config")
    items = document.children("layers")
    if len(items) > MAX_LAYERS:
        document.refuse("layers", f"{len(items)} layers; the bound is {MAX_LAYERS}")
    return Manifest(
        media_type=media_type,
        config=config,
        layers=tuple(_descriptor(item, layers, "a layer") for item in items),
    )


def _read_index(document: documents.Object, media_type: str) -> Index:
    entries = document.children("manifests")
    if len(entries) > MAX_INDEX_ENTRIES:
        document.refuse("manifests", f"{len(entries)} entries; the bound is {MAX_INDEX_ENTRIES}")
    # Entries of unknown types (signatures, reports) are kept: they belong to the bytes, and `choose` passes them by.
    return Index(media_type=media_type, manifests=tuple(_descriptor(entry, None, "") for entry in entries))


def _descriptor(item: documents.Object, allowed: Iterable[str] | None, noun: str) -> Descriptor:
    media_type = item.text("mediaType")
    if allowed is not None and media_type not in allowed:
        item.refuse("mediaType", f"{media_type!r:.100} is not the type of {noun}")
    if "urls" in item:
        # Foreign layers would make a node fetch from an address that the image chooses.
        item.refuse("urls", "layers that live at addresses named by the image are refused")
    return Descriptor(
        media_type=media_type,
        digest=item.digest("digest"),
        size_bytes=item.integer("size"),
        platform=_platform(item.child("platform")) if "platform" in item else None,
        annotations=tuple(item.text_map("annotations").items()),
    )


def _platform(item: documents.Object) -> Platform:
    return Platform(
        os=item.text("os", "linux"),
        architecture=item.text("architecture", ""),
        variant=item.text("variant", ""),
    )

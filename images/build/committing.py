"""An image out of another one and one more layer: `commit`.

    base = committing.parse_base(manifest_bytes, config_bytes)
    image = committing.add(store, base, layer, names=("web:2",), said=Said(changes=("CMD serve",)), created=…)

Rules. The image starts as its base does, but for the changes that were asked for: what the container was given beside
its image (environment, arguments) belongs to whoever runs it. Changes are instructions of a Dockerfile, read as such.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from images import digest as digests
from images import errors, image, manifest
from images.build import assembly, configuration, dockerfile, expansion, instructions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from images.build.configuration import Settings
    from images.image import Image, Layer
    from images.manifest import Platform
    from images.store import ImageStore

_CHANGES = (
    instructions.Cmd,
    instructions.Entrypoint,
    instructions.Env,
    instructions.Expose,
    instructions.Healthcheck,
    instructions.Label,
    instructions.Onbuild,
    instructions.Shell,
    instructions.Stopsignal,
    instructions.User,
    instructions.Volume,
    instructions.Workdir,
)
_KNOWN = ", ".join(one.__name__.upper() for one in _CHANGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The image that a container runs: what it is called here is nobody's business."""

    settings: Settings
    layers: tuple[Layer, ...]
    platform: Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a person says about the new image. `source` is where its layer comes from, for the history."""

    changes: tuple[str, ...] = ()
    author: str = ""
    message: str = ""
    source: str = ""


def parse_base(manifest_data: bytes, config_data: bytes) -> Base:
    """Read an image's two documents, which must belong to each other. Raises `InvalidImage` or `DigestMismatch`."""
    found = manifest.parse_manifest(manifest_data, what="the image's manifest")
    if digests.of_bytes(config_data) != found.config.digest:
        raise errors.DigestMismatch(f"config {found.config.digest}: other bytes have come; try again")
    config = image.parse_config(config_data, what="the image's config")
    if len(config.diff_ids) != len(found.layers):
        raise errors.InvalidImage(f"config {found.config.digest}: it names another number of layers than the manifest")
    layers = zip(found.layers, config.diff_ids, strict=True)
    return Base(
        settings=configuration.inherited(config_data, what="the image's config"),
        layers=tuple(image.layer(entry, diff_id) for entry, diff_id in layers),
        platform=config.platform,
    )


def read_changes(texts: Sequence[str]) -> tuple[instructions.Instruction, ...]:
    """`CMD serve`, `ENV A=1`: what may be said of an image without files. Raises `InvalidDockerfile`."""
    return tuple(_change(text, number) for number, text in enumerate(texts, 1))


def _change(text: str, number: int) -> instructions.Instruction:
    found = dockerfile.lone(text, name=f"change {number}")
    if not isinstance(found, _CHANGES):
        word = found.place.text.partition(" ")[0]
        raise errors.InvalidDockerfile(f"{found.place}: {word:.40} changes more than settings; these may be: {_KNOWN}")
    return found


def applied(settings: Settings, changes: Sequence[instructions.Instruction]) -> Settings:
    """The settings after the changes, each with the variables that those before it have left."""
    for change in changes:
        found = expansion.expanded(change, settings.env)
        settings = configuration.applied(settings, found)
    return settings


def add(store: ImageStore, base: Base, layer: Layer, *, said: Said, created: str, names: Sequence[str]) -> Image:
    """The image in the store, under its names. Its layers are there already; call it inside `store.hold()`."""
    settings = applied(base.settings, read_changes(said.changes))
    event = configuration.Event(
        created=created, created_by=said.source, empty=False, author=said.author, comment=said.message
    )
    settings = replace(settings, author=said.author or settings.author).told(event)
    layers = (*base.layers, layer)
    return assembly.add(store, settings, layers, platform=base.platform, created=created, names=names)

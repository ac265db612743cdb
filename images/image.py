"""An image as the rest of the system sees it: its configuration, its layers and what they are called.

The rule: these are values. What is on the disk is the business of `images.store`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from images import digest as digests
from images import documents
from images.manifest import MAX_LAYERS, Descriptor, Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORT = re.compile(r"([1-9][0-9]{0,4})(?:/(tcp|udp|sctp))?")
_NO_LABELS: Mapping[str, str] = {}
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a container of the image starts unless the task says otherwise.

    `exposed_ports` read `80/tcp`; `env` entries read `NAME=value`; `created` is RFC 3339 text or empty.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    stop_signal: str = ""
    created: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of an image's history: how a layer was made or, with `is_empty`, what else was changed."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    is_empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: `digest` names the blob as stored, `diff_id` its bytes once decompressed."""

    digest: str
    diff_id: str
    size_bytes: int
    media_type: str


def layer(entry: Descriptor, diff_id: str) -> Layer:
    return Layer(digest=entry.digest, diff_id=diff_id, size_bytes=entry.size_bytes, media_type=entry.media_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image for one platform; `digest` is its manifest's and is what pins it."""

    names: tuple[str, ...] = ()
    digest: str
    config_digest: str
    platform: Platform
    layers: tuple[Layer, ...]
    config: Config
    history: tuple[Step, ...] = ()

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The name of each layer's unpacked folder, bottom to top."""
        return digests.chain_ids(tuple(layer.diff_id for layer in self.layers))

    @property
    def size_bytes(self) -> int:
        """What the layers take as stored."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def title(self) -> str:
        """What errors call it."""
        return self.names[0] if self.names else self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDocument:
    """The config blob: platform, layers' diff ids and the container's configuration."""

    platform: Platform
    diff_ids: tuple[str, ...]
    config: Config
    history: tuple[Step, ...] = ()

    def as_bytes(self) -> bytes:
        """OCI form, canonical: equal documents have equal digests."""
        value: dict[str, Any] = {
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": _config_json(self.config),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "created": self.config.created or EPOCH,
        }
        if self.platform.variant:
            value["variant"] = self.platform.variant
        if self.history:
            value["history"] = [_step_json(step) for step in self.history]
        return documents.dump(value)


def parse_config(data: bytes, *, what: str) -> ConfigDocument:
    """Read a config blob (OCI or Docker), or raise `InvalidImage` with the field."""
    document = documents.parse(data, what=what)
    rootfs = document.child("rootfs")
    if rootfs.text("type") != "layers":
        rootfs.refuse("type", "only 'layers' is known")
    diff_ids = rootfs.texts("diff_ids")
    if len(diff_ids) > MAX_LAYERS:
        rootfs.refuse("diff_ids", f"{len(diff_ids)} layers; the bound is {MAX_LAYERS}")
    for number, diff_id in enumerate(diff_ids):
        if not digests.is_digest(diff_id):
            rootfs.refuse(f"diff_ids[{number}]", f"{diff_id!r:.100} is not sha256: and 64 lower-case hex digits")
    return ConfigDocument(
        platform=Platform(
            os=document.text("os"),
            architecture=document.text("architecture"),
            variant=document.text("variant", ""),
        ),
        diff_ids=diff_ids,
        config=_read_config(document.child("config"), document.text("created", "")),
        history=tuple(_read_step(item) for item in document.children("history")),
    )


def _read_step(item: documents.Object) -> Step:
    return Step(
        created=item.text("created", ""),
        created_by=item.text("created_by", ""),
        author=item.text("author", ""),
        comment=item.text("comment", ""),
        is_empty=item.flag("empty_layer"),
    )


def _step_json(step: Step) -> dict[str, Any]:
    texts = {"created": step.created, "created_by": step.created_by, "author": step.author, "comment": step.comment}
    return {**{key: text for key, text in texts.items() if text}, **({"empty_layer": True} if step.is_empty else {})}


def _read_config(item: documents.Object, created: str) -> Config:
    ports = tuple(sorted(item.child("ExposedPorts").fields))
    for port in ports:
        match = _PORT.fullmatch(port)
        if not match or int(match[1]) > 65535:
            item.refuse(f"ExposedPorts.{port:.40}", "expected a port from 1 to 65535, with /tcp, /udp or /sctp")
    for number, variable in enumerate(item.texts("Env")):
        if not variable.partition("=")[0] or "\0" in variable:
            item.refuse(f"Env[{number}]", f"{variable!r:.100} is not NAME=value")
    return Config(
        entrypoint=item.texts("Entrypoint"),
        cmd=item.texts("Cmd"),
        env=item.texts("Env"),
        working_dir=item.text("WorkingDir", ""),
        user=item.text("User", ""),
        exposed_ports=ports,
        volumes=tuple(sorted(item.child("Volumes").fields)),
        labels=item.text_map("Labels"),
        stop_signal=item.text("StopSignal", ""),
        created=created,
    )


def _config_json(config: Config) -> dict[str, Any]:
    value = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": list(config.env),
        "WorkingDir": config.working_dir,
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {path: {} for path in config.volumes},
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
    return {key: entry for key, entry in value.items() if entry}

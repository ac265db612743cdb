"""Archives and documents for tests, honest and hostile; built by hand where `tarfile` would refuse to lie."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Any

from images import digest as digests
from images import documents, image, manifest

if TYPE_CHECKING:
    from images.store import ImageStore

OCI_LAYOUT = documents.dump({"imageLayoutVersion": "1.0.0"})


def member(name: str, kind: bytes = tarfile.REGTYPE, *, content: bytes = b"", link: str = "", **fields: Any) -> bytes:
    """One tar member with its content; extra keywords set attributes of `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def directory(name: str, **fields: Any) -> bytes:
    return member(name, tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: str, target: str) -> bytes:
    return member(name, tarfile.SYMTYPE, link=target)


def hardlink(name: str, target: str) -> bytes:
    return member(name, tarfile.LNKTYPE, link=target)


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE) -> bytes:
    return member(name, kind, devmajor=major, devminor=minor)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def rewritten(block: bytes, start: int, data: bytes) -> bytes:
    """A header with some bytes replaced and its checksum made right again: what `tarfile` would not write."""
    changed = block[:start] + data + block[start + len(data) :]
    blank = changed[:148] + b"        " + changed[156:512]
    return changed[:148] + b"%06o\0 " % sum(blank) + changed[156:]


def files(entries: dict[str, bytes]) -> bytes:
    """A tar of plain files."""
    return archive(*(member(name, content=content) for name, content in entries.items()))


def config_document(*layers: bytes, **config: Any) -> bytes:
    return documents.dump(
        {
            "architecture": manifest.host_platform().architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [digests.of_bytes(layer) for layer in layers]},
        }
    )


def docker_archive(*layers: bytes, tags: tuple[str, ...] = ("web:1",), **config: Any) -> dict[str, bytes]:
    """The members of a `docker save` archive, to be changed by the test and packed with `files`."""
    document = config_document(*layers, **config)
    config_name = digests.hex_of(digests.of_bytes(document)) + ".json"
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    listing = documents.dump([{"Config": config_name, "RepoTags": list(tags), "Layers": names}])
    return {config_name: document, **dict(zip(names, layers, strict=True)), "manifest.json": listing}


def blob_name(data: bytes) -> str:
    return f"blobs/sha256/{digests.hex_of(digests.of_bytes(data))}"


def descriptor(data: bytes, media_type: str, **extra: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digests.of_bytes(data), "size": len(data), **extra}


def manifest_document(config: bytes, *layers: bytes) -> bytes:
    return documents.dump(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "config": descriptor(config, manifest.OCI_CONFIG),
            "layers": [descriptor(layer, manifest.OCI_LAYER) for layer in layers],
        }
    )


def index_document(*entries: dict[str, Any]) -> bytes:
    return documents.dump({"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": list(entries)})


def oci_layout(*layers: bytes, label: str | None = "web:1") -> dict[str, bytes]:
    """The members of an OCI layout with one image."""
    config = config_document(*layers)
    body = manifest_document(config, *layers)
    annotations = {"annotations": {"org.opencontainers.image.ref.name": label}} if label else {}
    index = index_document(descriptor(body, manifest.OCI_MANIFEST, **annotations))
    return {
        "oci-layout": OCI_LAYOUT,
        "index.json": index,
        **{blob_name(blob): blob for blob in (config, body, *layers)},
    }


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


class Pipe(io.RawIOBase):
    """Bytes that cannot be sought in and that come a few at a time."""

    def __init__(self, data: bytes, *, piece: int = 700) -> None:
        super().__init__()
        self._left = io.BytesIO(data)
        self._piece = piece

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._left.read(min(size, self._piece) if size >= 0 else self._piece)


def compressed_image(store: ImageStore, blob: bytes, diff_id: str) -> image.Image:
    """An image whose one layer is `blob`, whatever it decompresses to."""
    config = documents.dump(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    )
    for data in (blob, config):
        store.put_bytes(data)
    body = documents.dump(
        {
            "schemaVersion": 2,
            "config": descriptor(config, manifest.OCI_CONFIG),
            "layers": [descriptor(blob, f"{manifest.OCI_LAYER}+gzip")],
        }
    )
    return store.resolve(store.put_bytes(body))

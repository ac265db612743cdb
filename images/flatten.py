"""Write the root file system of an image as one tar: what a container of it would see, without layers or whiteouts.

The rule: an image gives the same bytes everywhere. Every layer's files that are still seen come in the order in which
the layer has them, hard links right behind the file; folders come last and deepest first, so that nothing that is put
into one changes the time that its entry gave it.
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from images import errors, progress, streams, tarwrite, tree
from images.tarstream import Entry, Kind, TarReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from images.image import Image
    from images.store import ImageStore

_SILENT = progress.Silent()
_TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.CHARACTER_DEVICE: tarfile.CHRTYPE,
    Kind.BLOCK_DEVICE: tarfile.BLKTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}
_NS = 1_000_000_000


def export_root(store: ImageStore, image: Image, sink: streams.Sink, *, watcher: progress.Progress = _SILENT) -> None:
    """Write it; the sink may be a pipe. `InvalidImage` when a layer is not what it should be."""
    with store.hold():
        layers = tree.Layers(store=store)
        found = tree.files(layers, image)
        _check_size(image, found.values(), layers.limits.max_bytes)
        paths: dict[tuple[str, int], list[str]] = {}
        for path, node in found.items():
            if node.entry.kind is not Kind.DIRECTORY:
                paths.setdefault(node.inode, []).append(path)
        written: set[str] = set()  # an image may have one layer twice
        for layer in image.layers:
            if layer.diff_id not in written and any(diff_id == layer.diff_id for diff_id, _ in paths):
                written.add(layer.diff_id)
                watcher.step(layer.digest, "exporting", 0, layer.size_bytes)
                for number, (entry, reader) in enumerate(layers.read(layer, image.title)):
                    _write(sink, entry, reader, paths.get((layer.diff_id, number), ()))
            watcher.step(layer.digest, "done", layer.size_bytes, layer.size_bytes)
        for path, node in reversed(found.items()):
            if node.entry.kind is Kind.DIRECTORY:
                tarwrite.write_member(sink, _info(node.entry, path))
        tarwrite.write_end(sink)


def _check_size(image: Image, nodes: Iterable[tree.Node], max_bytes: int) -> None:
    """Holes are written as zeros, so what takes no room in a layer may take much here."""
    size_bytes = sum({node.inode: node.entry.size_bytes for node in nodes}.values())
    if size_bytes > max_bytes:
        raise errors.LimitExceeded(
            f"image {image.title}: its files have {size_bytes} bytes, the bound is {max_bytes}; unpack it instead"
        )


def _write(sink: streams.Sink, entry: Entry, reader: TarReader, paths: Sequence[str]) -> None:
    """The file under the first of its names, and links to it for the others."""
    if not paths:
        return
    first, *others = paths
    info = _info(entry, first)
    info.size = entry.size_bytes
    tarwrite.write_member(sink, info)
    for data in _filled(entry, reader):
        sink.write(data)
    sink.write(bytes(-info.size % tarfile.BLOCKSIZE))
    for path in others:
        link = tarfile.TarInfo(path)
        link.type, link.linkname = tarfile.LNKTYPE, first
        link.mode, link.uid, link.gid, link.mtime = info.mode, info.uid, info.gid, info.mtime
        tarwrite.write_member(sink, link)


def _filled(entry: Entry, reader: TarReader) -> Iterator[bytes]:
    """The content, with zeros in its holes."""
    end = 0
    for offset, data in reader.segments():
        yield from _zeros(offset - end)
        yield data
        end = offset + len(data)
    yield from _zeros(entry.size_bytes - end)


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, streams.CHUNK_BYTES))
        size -= streams.CHUNK_BYTES


def _info(entry: Entry, path: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path or ".")
    info.type, info.linkname = _TYPES[entry.kind], entry.link
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.devmajor, info.devminor = entry.device
    seconds, rest_ns = divmod(entry.mtime_ns, _NS)
    info.mtime = seconds
    # What the plain header has no room for; bytes that are no text go through as they are.
    info.pax_headers = {f"SCHILY.xattr.{key}": _text(value) for key, value in sorted(entry.xattrs.items())}
    if rest_ns:
        info.pax_headers["mtime"] = f"{seconds}.{rest_ns:09d}" if seconds >= 0 else str(seconds)
    return info


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")

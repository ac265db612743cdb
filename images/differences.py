"""What is different between the roots of two images, file by file.

The rule: a file is changed when its content, kind, mode, owner, link, device or attributes are; not when only its time
is, which every build changes. Contents are digested only where sizes are equal and the bytes are not one layer's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from images import tree
from images.tarstream import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from images.image import Image
    from images.store import ImageStore
    from images.tree import Node

_FACTS = {"mode": "mode", "owner": "owner", "link": "link", "device": "device", "attributes": "xattrs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path. `what` names that which differs of a changed one; the sizes are those before and after."""

    path: str
    kind: Literal["added", "changed", "removed"]
    what: tuple[str, ...] = ()
    before_bytes: int = 0
    after_bytes: int = 0


def compare(store: ImageStore, before: Image, after: Image) -> tuple[Change, ...]:
    """All changes from one image to the other, by path."""
    with store.hold():
        layers = tree.Layers(store=store)
        old, new = tree.files(layers, before), tree.files(layers, after)
        wanted = {
            node.inode
            for path in old.keys() & new.keys()
            if _undecided(old[path], new[path])
            for node in (old[path], new[path])
        }
        contents = _Contents(layers, (before, after), frozenset(wanted))
        return tuple(_changes(old, new, contents.digests))


def _changes(
    old: Mapping[str, Node], new: Mapping[str, Node], contents: Mapping[tuple[str, int], bytes]
) -> Iterator[Change]:
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            yield Change(path=path, kind="removed", before_bytes=old[path].entry.size_bytes)
        elif path not in old:
            yield Change(path=path, kind="added", after_bytes=new[path].entry.size_bytes)
        elif what := tuple(_different(old[path], new[path], contents)):
            sizes = old[path].entry.size_bytes, new[path].entry.size_bytes
            yield Change(path=path, kind="changed", what=what, before_bytes=sizes[0], after_bytes=sizes[1])


def _undecided(old: Node, new: Node) -> bool:
    """Whether only the bytes can tell."""
    files = old.entry.kind is new.entry.kind is Kind.FILE
    return files and old.inode != new.inode and old.entry.size_bytes == new.entry.size_bytes


def _different(old: Node, new: Node, contents: Mapping[tuple[str, int], bytes]) -> Iterator[str]:
    if old.inode == new.inode and old.number >= 0:
        return
    if old.entry.kind is not new.entry.kind:
        yield "kind"
        return
    if old.entry.size_bytes != new.entry.size_bytes or contents.get(old.inode) != contents.get(new.inode):
        yield "content"
    for name, fact in _FACTS.items():
        if _fact(old.entry, fact) != _fact(new.entry, fact):
            yield name


def _fact(entry: Entry, name: str) -> object:
    return (entry.uid, entry.gid) if name == "owner" else getattr(entry, name)


class _Contents:
    """Digests of the files that have to be looked into, in one pass over each layer that has some."""

    def __init__(self, layers: tree.Layers, images: tuple[Image, Image], wanted: frozenset[tuple[str, int]]) -> None:
        self.digests: dict[tuple[str, int], bytes] = {}
        by_diff_id = {layer.diff_id: (layer, image.title) for image in images for layer in image.layers}
        for diff_id, (layer, title) in by_diff_id.items():
            numbers = {number for wanted_id, number in wanted if wanted_id == diff_id}
            if numbers:
                for number, (_, reader) in enumerate(layers.read(layer, title)):
                    if number in numbers:
                        self.digests[diff_id, number] = _digest(reader.segments())


def _digest(segments: Iterator[tuple[int, bytes]]) -> bytes:
    """Holes count as what they read as only when both files have them alike; a rebuilt sparse file may look changed."""
    found = hashlib.sha256()
    end = 0
    for offset, data in segments:
        if offset != end:
            found.update(b"hole" + offset.to_bytes(8, "little"))
        found.update(data)
        end = offset + len(data)
    return found.digest()

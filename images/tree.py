"""What the root of an image holds, worked out from the entries of its layers; nothing is unpacked.

Rules. Whiteouts hide what is below and never what the same layer brings; the last of several entries with one name
wins; a folder that no entry lists stays as it was below (OCI layer specification). Every layer is read to its end and
compared with its diff id. What `images.extract` refuses is refused here, as far as names and kinds tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from images import compression, errors, extract
from images.tarstream import Entry, Kind, TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.image import Image, Layer
    from images.store import ImageStore

_DEFAULT_LIMITS = compression.Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A file of the root. `entry` is the one that made its inode, number `number` in the layer `diff_id`.

    Names with equal `inode` are hard links of each other. A folder that no entry lists has no number. `height` counts
    the layers below, of which two may be equal.
    """

    entry: Entry
    diff_id: str
    height: int
    number: int

    @property
    def inode(self) -> tuple[str, int]:
        return self.diff_id, self.number


@dataclass(slots=True)
class _Place:
    """A name in the tree: its node, and for a folder what is in it."""

    node: Node
    children: dict[str, _Place] | None = None


@dataclass(slots=True)
class Layers:
    """Reads layers of a store, the list of entries of each only once."""

    store: ImageStore
    limits: compression.Limits = _DEFAULT_LIMITS
    _known: dict[str, tuple[Entry, ...]] = field(default_factory=dict)

    def entries(self, layer: Layer, title: str) -> tuple[Entry, ...]:
        """All entries in order. Raises `InvalidImage` (and its kinds) for a layer that is not what it should be."""
        if layer.diff_id not in self._known:
            self._known[layer.diff_id] = tuple(self._bounded(layer, title))
        return self._known[layer.diff_id]

    def _bounded(self, layer: Layer, title: str) -> Iterator[Entry]:
        """All of them are kept in memory, so the bound is for all layers together."""
        left = self.limits.max_entries - sum(map(len, self._known.values()))
        for number, (entry, _) in enumerate(self.read(layer, title)):
            if number >= left:
                what = f"image {title}: layer {layer.digest}"
                raise errors.LimitExceeded(f"{what}: with those below more than {self.limits.max_entries} entries")
            yield entry

    def read(self, layer: Layer, title: str) -> Iterator[tuple[Entry, TarReader]]:
        """Entry by entry, with the reader whose `segments` are the content; the digest is compared at the end."""
        what = f"image {title}: layer {layer.digest}"
        with self.store.open(layer.digest) as blob:
            meter = compression.Meter(
                compression.reader(blob, what=what), stored_bytes=layer.size_bytes, limits=self.limits, what=what
            )
            reader = TarReader(meter, what=what, max_entries=self.limits.max_entries)
            for entry in reader:
                yield entry, reader
            reader.drain()
            meter.check(layer.diff_id)


def files(layers: Layers, image: Image) -> dict[str, Node]:
    """Every path of the image's root in order, folders before what is in them; the root itself is "" where listed."""
    root = _Place(
        node=Node(entry=Entry(name="", kind=Kind.DIRECTORY, mode=0o755), diff_id="", height=-1, number=-1), children={}
    )
    for height, layer in enumerate(image.layers):
        entries = layers.entries(layer, image.title)
        step = _Step(root, layer.diff_id, height, f"image {image.title}: layer {layer.digest}")
        for entry in entries:
            step.hide(entry)
        for number, entry in enumerate(entries):
            step.put(entry, number)
    found = dict(_walk(root, ""))
    return found if root.node.number < 0 else {"": root.node, **found}


def _walk(place: _Place, path: str) -> Iterator[tuple[str, Node]]:
    todo = [(path, place)]
    while todo:
        path, place = todo.pop()
        if path:
            yield path, place.node
        below = sorted((place.children or {}).items(), reverse=True)
        todo.extend((f"{path}/{name}" if path else name, child) for name, child in below)


class _Step:
    """One layer on its way onto what is below."""

    def __init__(self, root: _Place, diff_id: str, height: int, what: str) -> None:
        self._root = root
        self._diff_id = diff_id
        self._height = height
        self._what = what

    def hide(self, entry: Entry) -> None:
        """Apply a whiteout, before anything of this layer is there."""
        name = extract.hidden(entry.name)
        if name is None:
            return
        parent = self._find(entry.name.rpartition("/")[0])
        if parent is None or parent.children is None:
            return
        if name == "":
            parent.children.clear()
        elif name in {".", ".."}:
            raise self._refuse(entry, "a whiteout must name one file")
        else:
            parent.children.pop(name, None)

    def put(self, entry: Entry, number: int) -> None:
        """Add what an entry makes."""
        if extract.is_bookkeeping(entry.name):
            return
        if any(part.startswith(".wh.") for part in entry.name.split("/")[:-1]):
            raise self._refuse(entry, "a whiteout cannot be a folder")
        if extract.hidden(entry.name) is not None:
            self._folder(entry.name.rpartition("/")[0], entry)  # which a whiteout implies like any other entry
            return
        if not entry.name and entry.kind is not Kind.DIRECTORY:
            raise self._refuse(entry, f"the top of a layer must be a folder, not a {entry.kind.value}")
        node = self._node(entry, number)
        if not entry.name:
            self._root.node = node
            return
        folder, _, name = entry.name.rpartition("/")
        children = self._folder(folder, entry)
        found = children.get(name)
        if entry.kind is Kind.DIRECTORY:
            below = found.children if found is not None and found.children is not None else {}
            children[name] = _Place(node=node, children=below)
        else:
            children[name] = _Place(node=node)

    def _node(self, entry: Entry, number: int) -> Node:
        if entry.kind is Kind.HARDLINK:
            return self._target(entry)
        if entry.kind in {Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE} and not extract.is_harmless(entry):
            raise self._refuse(entry, "this {} {}:{} is refused".format(entry.kind.value, *entry.device))
        return Node(entry=entry, diff_id=self._diff_id, height=self._height, number=number)

    def _target(self, entry: Entry) -> Node:
        """What a hard link is another name of. What it takes the place of is gone by then."""
        found = None if f"{entry.link}/".startswith(f"{entry.name}/") else self._find(entry.link)
        if found is None or found.node.height != self._height or found.children is not None:
            raise self._refuse(entry, f"hard link to {entry.link!r:.200}, which is no file of this layer")
        return found.node

    def _folder(self, path: str, entry: Entry) -> dict[str, _Place]:
        """What is in a folder; those that no entry lists are made, also in place of a file below."""
        place = self._root
        for name in path.split("/") if path else ():
            assert place.children is not None, "only folders are entered"
            child = place.children.get(name)
            if child is None or child.children is None:
                if child is not None and child.node.height == self._height:
                    raise self._refuse(entry, f"its folder {name!r:.100} is no folder in the same layer")
                implied = Entry(name="", kind=Kind.DIRECTORY, mode=0o755, mtime_ns=entry.mtime_ns)
                node = Node(entry=implied, diff_id=self._diff_id, height=self._height, number=-1)
                child = _Place(node=node, children={})
                place.children[name] = child
            place = child
        assert place.children is not None, "the last one is a folder, too"
        return place.children

    def _find(self, path: str) -> _Place | None:
        place: _Place | None = self._root
        for name in path.split("/") if path else ():
            place = place.children.get(name) if place is not None and place.children is not None else None
        return place

    def _refuse(self, entry: Entry, reason: str) -> errors.InvalidImage:
        return errors.InvalidImage(f"{self._what}: entry {entry.name!r:.300}: {reason}; build the image without it")

"""Manifests to objects: one generic reader over the schema, which reports every mistake at once with its place.

A document is a mapping with `kind` (`Service`), optionally `apiVersion: orch/v1`, and the fields of that message under
their camelCase names. Decisions that a reader of YAML has to make, each of which is tested:

- `status` and the other fields that the system sets are accepted and ignored: what `get -o yaml` prints can be applied.
- null (`~`, an empty value) means "left out" for a field. As an item of a list or a value of a map it is refused,
  since nobody can tell an empty text from a forgotten one.
- `kind: List` with `items` is accepted, because anchors end with their document: it is how services share them.
  What we print is documents separated by `---`.
- Keys of a document that begin with `x-` are ignored: a place to hang anchors on.
- An object without a namespace is given the one that `read` is called with.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from manifests import documents, files, nodes, objects, paths, quoting, suggest
from manifests.documents import Source
from manifests.mistakes import Collector, InvalidManifest, Mistake, Place
from manifests.nodes import Items, Mapping, Node, Scalar
from manifests.paths import Path
from protos import kinds

__all__ = ["InvalidManifest", "Manifest", "Mistake", "Place", "Source", "Written", "read"]

API_VERSION = "orch/v1"
LIST = "List"
NAME = ("meta", "name")
_NUMBER = re.compile("[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An object and where it was written."""

    object: kinds.StoredObject
    place: Place
    node: Mapping

    def place_of(self, path: Path) -> Place:
        """Where a field was written, or what is nearest to it."""
        return nodes.locate(self.node, path)

    @property
    def made_from(self) -> tuple[int, int]:
        """The version and the generation that the text holds, as `get -o yaml` prints them; 0 where it has none.

        They are no part of the object: who wants to know whether it has changed since then asks here.
        """
        return _number(self.node, "version"), _number(self.node, "generation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that was read, in the order of the sources."""

    written: tuple[Written, ...]

    @property
    def objects(self) -> tuple[kinds.StoredObject, ...]:
        return tuple(written.object for written in self.written)


def read(sources: Sequence[Source], *, namespace: str = "default", load: files.Load = files.nowhere) -> Manifest:
    """The objects of all sources. Raises InvalidManifest with every mistake that is in them.

    `namespace` is given to objects that have one and do not say which. `load` reads the files that manifests name.
    """
    mistakes = Collector()
    written: dict[tuple[str, str, str], Written] = {}
    for source in sources:
        for document in documents.documents(source, mistakes):
            for node in _objects(document, mistakes):
                if (found := _object(node, namespace, mistakes, load)) is not None:
                    _add(written, found, mistakes)
    mistakes.raise_if_any([source.name for source in sources])
    return Manifest(written=tuple(written.values()))


def _number(node: Mapping, name: str) -> int:
    meta = node.entries["meta"].value if "meta" in node.entries else None
    value = meta.entries[name].value if isinstance(meta, Mapping) and name in meta.entries else None
    return int(value.text) if isinstance(value, Scalar) and _NUMBER.fullmatch(value.text) else 0


def _objects(document: Node, mistakes: Collector) -> list[Mapping]:
    """The objects of a document: itself, or the items of a list."""
    if not isinstance(document, Mapping):
        hint = 'begin with "kind: Service"'
        mistakes.add(Mistake(place=document.place, message=f"{nodes.what(document)} instead of an object", hint=hint))
        return []
    kind = document.entries.get("kind")
    is_list = kind is not None and isinstance(kind.value, Scalar) and kind.value.text == LIST
    return _items(document, mistakes) if is_list else [document]


def _items(document: Mapping, mistakes: Collector) -> list[Mapping]:
    """The objects of a `kind: List`."""
    for key, entry in document.entries.items():
        if key not in {"kind", "apiVersion", "items"} and not key.startswith("x-"):
            path, hint = paths.show((key,)), "a List has items only"
            mistakes.add(Mistake(place=entry.place, path=path, message="unknown field", hint=hint))
    items = document.entries.get("items")
    if items is None or not isinstance(items.value, Items):
        place = items.value.place if items else document.place
        mistakes.add(Mistake(place=place, path="items", message="a List needs a list of objects"))
        return []
    for index, item in enumerate(items.value.values):
        if not isinstance(item, Mapping):
            path, message = paths.show(("items", index)), f"{nodes.what(item)} instead of an object"
            mistakes.add(Mistake(place=item.place, path=path, message=message))
    return [item for item in items.value.values if isinstance(item, Mapping)]


def _object(node: Mapping, namespace: str, mistakes: Collector, load: files.Load) -> Written | None:
    kind = _kind(node, mistakes)
    if kind is None:
        return None
    value = kind.message()
    reader = objects.ObjectReader(node, mistakes, load)
    reader.read(value)
    if kind.namespaced and value.HasField("meta") and not value.meta.namespace:
        value.meta.namespace = namespace
    reader.check(value)
    return Written(object=value, place=node.place, node=node)


def _kind(node: Mapping, mistakes: Collector) -> kinds.Kind | None:
    """The kind that a document says it is; None, and a mistake, when it is none that people write."""
    version = node.entries.get("apiVersion")
    if version and not (isinstance(version.value, Scalar) and version.value.text == API_VERSION):
        message = f"a version that is not known here; this is {API_VERSION}"
        mistakes.add(Mistake(place=version.value.place, path="apiVersion", message=message))
    titles = {kind.title: kind for kind in kinds.KINDS}
    writable = [kind.title for kind in kinds.written_by_people()]
    entry = node.entries.get("kind")
    if entry is None or not isinstance(entry.value, Scalar) or entry.value.is_null:
        message, hint = "an object has to say its kind", f"write kind: {suggest.one_of(writable)}"
        mistakes.add(Mistake(place=entry.place if entry else node.place, path="kind", message=message, hint=hint))
        return None
    word = entry.value.text
    kind = titles.get(word)
    if kind is None:
        hint = suggest.did_you_mean(word, [*writable, LIST]) or f"kinds are {', '.join(writable)}"
        mistakes.add(
            Mistake(place=entry.value.place, path="kind", message=f"unknown kind {quoting.shown(word)}", hint=hint)
        )
    elif not kind.written_by_people:
        message, hint = f"a {word} is made by the system", f"manifests hold {', '.join(writable)}"
        mistakes.add(Mistake(place=entry.value.place, path="kind", message=message, hint=hint))
        return None
    return kind


def _add(written: dict[tuple[str, str, str], Written], found: Written, mistakes: Collector) -> None:
    meta = found.object.meta
    key = (kinds.of(found.object).name, meta.namespace, meta.name)
    first = written.setdefault(key, found)
    if first is not found and meta.name:
        place = found.place_of(NAME)
        shown = quoting.shown(f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name)
        message = f"{kinds.of(found.object).title} {shown} is here twice; the first is at {first.place_of(NAME)}"
        mistakes.add(Mistake(place=place, path="meta.name", message=message, hint="remove or rename one of them"))

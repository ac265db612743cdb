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
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from manifests import checks, documents, fields, paths, rules, scalars, suggest
from manifests.documents import Entry, Items, Mapping, Node, Scalar, Source
from manifests.mistakes import Collector, InvalidManifest, Mistake, Place
from manifests.paths import Path
from protos import kinds, schema

__all__ = ["InvalidManifest", "Manifest", "Mistake", "Place", "Source", "Written", "read"]

API_VERSION = "orch/v1"
LIST = "List"
MAX_OBJECTS = 10_000
"""Of one `read`."""

_NO_SPACE = re.compile(r"[A-Za-z]\w*:\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An object and where it was written."""

    object: kinds.StoredObject
    place: Place
    node: Mapping

    def place_of(self, path: Path) -> Place:
        """Where a field was written, or what is nearest to it."""
        return _locate(self.node, path, at_key=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that was read, in the order of the sources."""

    written: tuple[Written, ...]

    @property
    def objects(self) -> tuple[kinds.StoredObject, ...]:
        return tuple(written.object for written in self.written)


def read(sources: Sequence[Source], *, namespace: str = "default") -> Manifest:
    """The objects of all sources. Raises InvalidManifest with every mistake that is in them.

    `namespace` is given to objects that have one and do not say which.
    """
    mistakes = Collector()
    written: dict[tuple[str, str, str], Written] = {}
    for source in sources:
        for document in documents.documents(source, mistakes):
            for node in _objects(document, mistakes):
                if (found := _object(node, namespace, mistakes)) is not None:
                    _add(written, found, mistakes)
    mistakes.raise_if_any([source.name for source in sources])
    return Manifest(written=tuple(written.values()))


def _objects(document: Node, mistakes: Collector) -> list[Mapping]:
    """The objects of a document: itself, or the items of a list."""
    if not isinstance(document, Mapping):
        hint = 'begin with "kind: Service"'
        mistakes.add(Mistake(place=document.place, message=f"{_what(document)} instead of an object", hint=hint))
        return []
    kind = document.entries.get("kind")
    if kind is None or not isinstance(kind.value, Scalar) or kind.value.text != LIST:
        return [document]
    for key, entry in document.entries.items():
        if key not in {"kind", "apiVersion", "items"} and not key.startswith("x-"):
            mistakes.add(Mistake(place=entry.place, path=key, message="unknown field", hint="a List has items only"))
    items = document.entries.get("items")
    if items is None or not isinstance(items.value, Items):
        place = items.value.place if items else document.place
        mistakes.add(Mistake(place=place, path="items", message="a List needs a list of objects"))
        return []
    for item in items.value.values:
        if not isinstance(item, Mapping):
            mistakes.add(Mistake(place=item.place, path="items", message=f"{_what(item)} instead of an object"))
    return [item for item in items.value.values if isinstance(item, Mapping)]


def _object(node: Mapping, namespace: str, mistakes: Collector) -> Written | None:
    kind = _kind(node, mistakes)
    if kind is None:
        return None
    value = kind.message()
    reader = _ObjectReader(node, mistakes)
    reader.read(value)
    if kind.namespaced and not value.meta.namespace and reader.may_have("meta"):
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
        mistakes.add(Mistake(place=entry.value.place, path="kind", message=f'unknown kind "{word:.40}"', hint=hint))
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
        place = found.place_of(("meta", "name"))
        message = f"{kinds.label(found.object)} is here twice; the first is at {first.place_of(('meta', 'name'))}"
        mistakes.add(Mistake(place=place, path="meta.name", message=message, hint="remove or rename one of them"))


class _ObjectReader:
    """Fills one object from its node, then checks it."""

    def __init__(self, node: Mapping, mistakes: Collector) -> None:
        self._node = node
        self._mistakes = mistakes
        self._wrong: set[Path] = set()
        """Where something was found to be wrong, so that it is not also called missing."""

    def read(self, value: Message) -> None:
        extra = {key for key in self._node.entries if key in {"kind", "apiVersion"} or key.startswith("x-")}
        self._fill(value, self._node, (), ignored=extra)

    def may_have(self, name: str) -> bool:
        return (name,) not in self._wrong

    def check(self, value: Message) -> None:
        """The rules of the schema and those across fields, for what could be read."""
        for problem in rules.validate(value):
            if not any(problem.keys[: len(wrong)] == wrong for wrong in self._wrong):
                place = _locate(self._node, problem.keys, at_key=problem.at_key)
                self._mistakes.add(Mistake(place=place, path=problem.path, message=problem.message, hint=problem.hint))

    def _fill(self, message: Message, node: Mapping, path: Path, ignored: AbstractSet[str] = frozenset()) -> None:
        known = schema.fields_by_yaml_name(message.DESCRIPTOR)
        for key, entry in node.entries.items():
            if (field := known.get(key)) is not None:
                if not schema.rules(field).system:
                    self._field(message, field, entry, (*path, key))
            elif key not in ignored:
                self._unknown(known, node, key, path)

    def _unknown(self, known: Iterable[str], node: Mapping, key: str, path: Path) -> None:
        meant = suggest.nearest(key, known)
        hint = f'did you mean "{meant}"?' if meant else self._elsewhere(key) or f"known are {', '.join(known)}"
        if meant not in node.entries:
            self._wrong.add((*path, meant))
        self._note(node.entries[key].place, (*path, key), "unknown field", hint)

    def _elsewhere(self, key: str) -> str:
        """Where a field of that name belongs, when there is one place only."""
        kind = self._node.entries["kind"].value
        assert isinstance(kind, Scalar), "an object that is being read has a kind"
        root = next(known.message.DESCRIPTOR for known in kinds.KINDS if known.title == kind.text)
        found = [path for path in fields.paths(root) if suggest.same(path[-1], key)]
        return f"it belongs to {paths.show(found[0][:-1])}" if len(found) == 1 else ""

    def _field(self, message: Message, field: FieldDescriptor, entry: Entry, path: Path) -> None:
        node = entry.value
        if isinstance(node, Scalar) and node.is_null:
            return
        if schema.is_map(field):
            self._map(message, field, node, path)
        elif schema.is_list(field):
            self._list(message, field, node, path)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            self._nested(child, node, path)
        elif (value := self._scalar(field, node, path)) is not None:
            self._set(message, field, value, entry, path)

    def _set(self, message: Message, field: FieldDescriptor, value: object, entry: Entry, path: Path) -> None:
        oneof = field.containing_oneof
        other = message.WhichOneof(oneof.name) if oneof is not None else None
        if other is not None and other != field.name:
            hint = f"remove it or {other}"
            self._note(entry.place, path, "only one of several fields can be given", hint)
            return
        setattr(message, field.name, value)
        if not schema.has_value(message, field) and (problem := checks.refusal_of_zero(field)):
            # The message cannot tell this zero from nothing, so the rules would not see it.
            self._note(entry.value.place, path, problem)

    def _map(self, message: Message, field: FieldDescriptor, node: Node, path: Path) -> None:
        if not isinstance(node, Mapping):
            self._wrong_type(node, path, "a mapping")
            return
        values = fields.map_value(field)
        target = getattr(message, field.name)
        for key, entry in node.entries.items():
            if isinstance(entry.value, Scalar) and entry.value.is_null:
                self._note(entry.place, (*path, key), "has no value", self._remedy_of_null(values))
            elif values.message_type is not None:
                self._nested(target[key], entry.value, (*path, key))
            elif (value := self._scalar(values, entry.value, (*path, key))) is not None:
                target[key] = value

    def _list(self, message: Message, field: FieldDescriptor, node: Node, path: Path) -> None:
        if not isinstance(node, Items):
            self._wrong_type(node, path, "a list", 'write it as [a, b], or with one line "- a" for each item')
            return
        target = getattr(message, field.name)
        for index, item in enumerate(node.values):
            if isinstance(item, Scalar) and item.is_null:
                self._note(item.place, (*path, index), "an empty item", self._remedy_of_null(field))
            elif field.message_type is not None:
                self._nested(target.add(), item, (*path, index))
            elif (value := self._scalar(field, item, (*path, index))) is not None:
                target.append(value)

    def _nested(self, child: Message, node: Node, path: Path) -> None:
        if isinstance(node, Mapping):
            self._fill(child, node, path)
            return
        glued = isinstance(node, Scalar) and node.plain and _NO_SPACE.match(node.text)
        hint = "write a space after the ':'" if glued else ""
        self._wrong_type(node, path, "a mapping", hint)

    def _scalar(self, field: FieldDescriptor, node: Node, path: Path) -> str | int | bool | None:
        if not isinstance(node, Scalar):
            self._wrong_type(node, path, scalars.wanted(field))
            return None
        try:
            return scalars.read(field, node)
        except scalars.Unreadable as unreadable:
            self._note(node.place, path, unreadable.message, unreadable.hint)
            return None

    def _remedy_of_null(self, field: FieldDescriptor) -> str:
        text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
        return 'write "" for an empty text, or remove it' if text else "give it one, or remove it"

    def _wrong_type(self, node: Node, path: Path, wanted: str, hint: str = "") -> None:
        self._note(node.place, path, f"{_what(node)} instead of {wanted}", hint)

    def _note(self, place: Place, path: Path, message: str, hint: str = "") -> None:
        self._wrong.add(path)
        self._mistakes.add(Mistake(place=place, path=paths.show(path), message=message, hint=hint))


def _locate(node: Node, path: Path, *, at_key: bool) -> Place:
    """The place of the value (or the key) at a path; where the way there ends, the key of the last step found."""
    place = node.place
    for number, step in enumerate(path):
        if isinstance(node, Mapping) and isinstance(step, str) and step in node.entries:
            entry = node.entries[step]
            last = number == len(path) - 1
            # A mapping's own place is that of its first key; the key it hangs on is what people look for.
            said = last and not at_key and isinstance(entry.value, Scalar) and not entry.value.is_null
            node, place = entry.value, entry.value.place if said else entry.place
        elif isinstance(node, Items) and isinstance(step, int) and step < len(node.values):
            node = node.values[step]
            place = node.place
        else:
            return place
    return place


def _what(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else "a single value"
    return "a list" if isinstance(node, Items) else "a mapping"

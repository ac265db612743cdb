"""One object from its node: every field by its type in the schema, then the rules.

Nothing here knows a single field. What cannot be read is a mistake at its place, and the rest is read all the same.
"""

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from manifests import checks, elsewhere, fields, files, nodes, paths, quoting, rules, scalars, suggest
from manifests.mistakes import Collector, Mistake, Place
from manifests.nodes import Entry, Items, Mapping, Node, Scalar
from manifests.paths import Path
from manifests.problems import Problem
from protos import kinds, schema

_NO_SPACE = re.compile(r"[A-Za-z]\w*:\S")
"""`image:hello`, which YAML takes for one text."""
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}", re.ASCII)


class ObjectReader:
    """Fills one object from its node, then checks it."""

    def __init__(self, node: Mapping, mistakes: Collector, load: files.Load) -> None:
        self._node = node
        self._mistakes = mistakes
        self._load = load
        self._loaded: dict[Path, str] = {}
        """The files that were read, by the field that they are in."""
        self._wrong: set[Path] = set()
        """Where something was found to be wrong, so that it is not also called missing."""

    def read(self, value: Message) -> None:
        extra = {key for key in self._node.entries if key in {"kind", "apiVersion"} or key.startswith("x-")}
        self._fill(value, self._node, (), ignored=extra)

    def check(self, value: Message) -> None:
        """The rules of the schema and those across fields, for what could be read."""
        for problem in rules.validate(value):
            if not self._was_told(problem):
                place = nodes.locate(self._node, problem.keys, at_key=problem.at_key)
                file = self._loaded.get(problem.keys)
                message = f"{quoting.shown(file)}: {problem.message}" if file else problem.message
                self._mistakes.add(Mistake(place=place, path=problem.path, message=message, hint=problem.hint))

    def _was_told(self, problem: Problem) -> bool:
        """Something is wrong at the place already, or around it; or inside, where it seemed that nothing is said."""
        keys = problem.keys
        if problem.of_nothing and any(path[: len(keys)] == keys for path in self._wrong):
            return True
        return any(keys[:length] in self._wrong for length in range(len(keys) + 1))

    def _fill(self, message: Message, node: Mapping, path: Path, ignored: AbstractSet[str] = frozenset()) -> None:
        known = schema.fields_by_yaml_name(message.DESCRIPTOR)
        for key, entry in node.entries.items():
            if (field := known.get(key)) is not None:
                if not schema.rules(field).system:
                    self._field(message, field, entry, (*path, key))
            elif key not in ignored:
                writable = [name for name, field in known.items() if not schema.rules(field).system]
                self._unknown(message, writable, node, key, path)

    def _unknown(self, message: Message, known: Sequence[str], node: Mapping, key: str, path: Path) -> None:
        if self._mistakes.is_full:
            # Nobody will read the hint, and finding one takes time.
            self._note(node.entries[key].place, (*path, key), "unknown field")
            return
        meant = elsewhere.renamed(message.DESCRIPTOR.full_name, key) or suggest.nearest(key, known)
        hint = f'did you mean "{meant}"?' if meant else self._elsewhere(key) or f"known are {', '.join(known)}"
        hint = elsewhere.REMEDIES.get(key, hint)
        if meant and key not in elsewhere.REMEDIES and meant not in node.entries:
            # Very likely the field was meant: that it is missing is no second mistake.
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
            if isinstance(node, Scalar) and (short := fields.in_short(field)) is not None:
                self._field(child, short, entry, (*path, schema.yaml_name(short)))
            else:
                self._nested(child, node, path)
        elif (value := self._scalar(field, node, path)) is not None:
            setattr(message, field.name, value)
            if not schema.has_value(message, field) and (problem := checks.refusal_of_zero(field)):
                # The message cannot tell this zero from nothing, so the rules would not see it.
                self._note(node.place, path, problem)

    def _map(self, message: Message, field: FieldDescriptor, node: Node, path: Path) -> None:
        if not isinstance(node, Mapping):
            self._wrong_type(node, path, "a mapping", _as_mapping(field, node))
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
        hint = elsewhere.as_mapping(child.DESCRIPTOR.full_name, node.text) if isinstance(node, Scalar) else ""
        self._wrong_type(node, path, "a mapping", hint or ("write a space after the ':'" if glued else ""))

    def _scalar(self, field: FieldDescriptor, node: Node, path: Path) -> str | int | bool | None:
        if not isinstance(node, Scalar):
            self._wrong_type(node, path, scalars.wanted(field))
            return None
        try:
            value = scalars.read(field, node)
            if isinstance(value, str) and schema.rules(field).file and files.is_path(value):
                self._loaded[path] = value
                return self._load(node.place.source, value)
        except (scalars.Unreadable, files.Unloadable) as unreadable:
            self._note(node.place, path, unreadable.message, unreadable.hint)
            return None
        return value

    def _remedy_of_null(self, field: FieldDescriptor) -> str:
        text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
        return 'write "" for an empty text, or remove it' if text else "give it one, or remove it"

    def _wrong_type(self, node: Node, path: Path, wanted: str, hint: str = "") -> None:
        self._note(node.place, path, f"{nodes.what(node)} instead of {wanted}", hint)

    def _note(self, place: Place, path: Path, message: str, hint: str = "") -> None:
        self._wrong.add(path)
        self._mistakes.add(Mistake(place=place, path=paths.show(path), message=message, hint=hint))


def _as_mapping(field: FieldDescriptor, node: Node) -> str:
    """How a list of words, or of `A=b`, is written as the mapping that the field is. Values may be passwords."""
    values = fields.map_value(field)
    first = node.values[0] if isinstance(node, Items) and node.values else None
    if not isinstance(first, Scalar) or values.message_type is not None:
        return ""
    example = next(iter(schema.enum_words(values.enum_type)), "") if values.enum_type is not None else "value"
    name = first.text.partition("=")[0]
    return f"write it as {{{name if _WORD.fullmatch(name) else 'NAME'}: {example}}}"

"""YAML text to trees of nodes that know their places, within bounds on everything.

Two rules. A scalar stays the text that was written (and whether it was quoted): what it means is decided by the
schema, so YAML 1.1's guesses (`no`, `0777`, `1e3`) never happen. And a file cannot cost more than its size: length,
documents, depth and nodes are bounded, with what aliases expand to counted in.

PyYAML's parser gives the events. Its composer is not used because it recurses without a bound, keeps the last of two
equal keys, and cannot say where an alias that explodes was written.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from manifests import quoting
from manifests.mistakes import Collector, Mistake, Place
from manifests.nodes import Entry, Items, Mapping, Node, Scalar

MAX_BYTES = 4 * 2**20
"""Of one source. A manifest of a thousand services has about half a megabyte."""
MAX_DOCUMENTS = 10_000
MAX_DEPTH = 64
MAX_NODES = 500_000
"""Of one source, what aliases stand for counted every time."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is for speed only

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""Control characters, and the line ends that editors do not count as such (U+0085, U+2028, U+2029)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The text of a file; `name` is what messages call it."""

    name: str
    text: bytes


class _Broken(Exception):  # noqa: N818 - the source is
    """The rest of the source cannot be read."""

    def __init__(self, place: Place, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.mistake = Mistake(place=place, message=message, hint=hint)


def documents(source: Source, mistakes: Collector) -> Iterator[Node]:
    """The documents of a source that hold something. A mistake that ends the reading of the source is added last."""
    try:
        yield from _Composer(source.name, _decode(source), mistakes).documents()
    except _Broken as broken:
        mistakes.add(broken.mistake)


def _decode(source: Source) -> str:
    """The text, once it is known to be one that can be parsed with right places."""
    start = Place(source=source.name, line=1, column=1)
    if len(source.text) > MAX_BYTES:
        size = f"{len(source.text) / 2**20:.1f} MiB"
        raise _Broken(start, f"the file is too big: {size}, at most {MAX_BYTES // 2**20} MiB are read", "split it")
    if source.text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _Broken(start, "the file is UTF-16", "save it as UTF-8")
    try:
        text = source.text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind a byte order mark.
        place = _place_after(source.name, error.object[: error.start].decode())
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise _Broken(place, message, "save the file as UTF-8") from error
    if found := _FORBIDDEN.search(text):
        code = f"U+{ord(found[0]):04X}"
        hint = f'remove it, or write it in double quotes as "\\u{ord(found[0]):04x}"'
        raise _Broken(_place_after(source.name, text[: found.start()]), f"a control character ({code})", hint)
    return text


def _place_after(name: str, before: str) -> Place:
    return Place(source=name, line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))


class _Composer:
    """Turns the events of one source into nodes. Recursive, which MAX_DEPTH makes safe."""

    def __init__(self, name: str, text: str, mistakes: Collector) -> None:
        self._name = name
        self._text = text
        self._parser = _PARSER(text)
        self._mistakes = mistakes
        self._nodes = 0
        self._anchors: dict[str, tuple[Node | None, int, Place]] = {}
        """By name: the node (None while it is still being read), how many nodes it expands to, and the place."""

    def documents(self) -> Iterator[Node]:
        count = 0
        try:
            self._next()  # the start of the stream
            while isinstance(event := self._next(), yaml.DocumentStartEvent):
                count += 1
                if count > MAX_DOCUMENTS:
                    self._fail(event, f"more than {MAX_DOCUMENTS} documents", "split the file")
                self._anchors = {}
                node = self._node(self._next(), 1)
                self._next()  # the end of the document
                if not (isinstance(node, Scalar) and node.is_null):
                    yield node
        finally:
            self._parser.dispose()

    def _next(self) -> yaml.Event:
        try:
            event: yaml.Event = self._parser.get_event()
        except yaml.MarkedYAMLError as error:
            raise _syntax_error(error, self._name, self._text) from error
        return event

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.NodeEvent), f"the parser gave {event} where a node begins"
        before = self._nodes
        self._count(event, 1)
        if depth > MAX_DEPTH:
            self._fail(event, f"nested deeper than {MAX_DEPTH} levels")
        self._refuse_tag(event)
        if event.anchor is not None:
            self._open_anchor(event.anchor, event)
        node = self._content(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before, node.place)
        return node

    def _content(self, event: yaml.NodeEvent, depth: int) -> Node:
        place = self._place(event)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(place=place, text=event.value, plain=event.style in {None, ""})
        if isinstance(event, yaml.SequenceStartEvent):
            items = Items(place=place)
            while not isinstance(item := self._next(), yaml.SequenceEndEvent):
                items.values.append(self._node(item, depth + 1))
            return items
        return self._mapping(Mapping(place=place), depth)

    def _mapping(self, mapping: Mapping, depth: int) -> Mapping:
        merges: list[Node] = []
        merge_place: Place | None = None
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            if not isinstance(key, Scalar):
                self._note(key.place, "a list or mapping as a key", "a key is one word")
            elif key.plain and key.text == "<<":
                if merge_place:
                    self._note(key.place, f"a second <<; the first is at {_line(merge_place)}", "write <<: [*a, *b]")
                merge_place = merge_place or key.place
                merges.append(value)
            elif (first := mapping.entries.get(key.text)) is not None:
                message = f"duplicate key {quoting.shown(key.text)}; the first is at {_line(first.place)}"
                self._note(key.place, message, "remove one of the two")
            else:
                mapping.entries[key.text] = Entry(place=key.place, value=value)
        for value in merges:
            self._merge(mapping, value)
        return mapping

    def _merge(self, mapping: Mapping, value: Node) -> None:
        """What is written beside `<<` wins over what is merged in, and an earlier mapping over a later one."""
        for merged in value.values if isinstance(value, Items) else [value]:
            if isinstance(merged, Mapping):
                for key, entry in merged.entries.items():
                    mapping.entries.setdefault(key, entry)
            else:
                self._note(merged.place, "<< merges mappings only", "write <<: *name, where &name is at a mapping")

    def _open_anchor(self, name: str, event: yaml.Event) -> None:
        if name in self._anchors:
            first = self._anchors[name][2]
            message = f"duplicate anchor &{name}; the first is at {_line(first)}"
            self._note(self._place(event), message, "give one of them another name")
        self._anchors[name] = (None, 0, self._place(event))

    def _alias(self, event: yaml.AliasEvent) -> Node:
        if event.anchor not in self._anchors:
            hint = "an anchor has to come before its aliases, in the same document"
            if self._anchors:
                hint = f"anchors of this document: {', '.join('&' + name for name in list(self._anchors)[:10])}"
            self._fail(event, f"no anchor &{event.anchor} for *{event.anchor}", hint)
        node, size, _ = self._anchors[event.anchor]
        if node is None:
            self._fail(event, f"*{event.anchor} stands inside of what it stands for", "an object cannot hold itself")
        self._count(event, size)
        return node

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            what = "aliases expand" if isinstance(event, yaml.AliasEvent) else "the file grows"
            self._fail(event, f"{what} to more than {MAX_NODES:,} values", "split the file")

    def _refuse_tag(self, event: yaml.NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = quoting.shown(tag.replace("tag:yaml.org,2002:", "!!"))
            self._note(self._place(event), f"a tag {shown}", "remove it; the type of each field is known")

    def _note(self, place: Place, message: str, hint: str = "") -> None:
        self._mistakes.add(Mistake(place=place, message=message, hint=hint))

    def _fail(self, event: yaml.Event, message: str, hint: str = "") -> NoReturn:
        raise _Broken(self._place(event), message, hint)

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        assert mark, "the parser says where"
        return Place(source=self._name, line=mark.line + 1, column=mark.column + 1)


def _line(place: Place) -> str:
    return f"line {place.line}"


_SYNTAX = (
    ("mapping values are not allowed", "a ':' where no value can begin", "check the indentation, or quote the text"),
    ("could not find expected ':'", "a key without a ':'", 'write "key: value"'),
    ("did not find expected key", "not a key", "check the indentation and quotes"),
    ("did not find expected '-'", "not an item of this list", "check the indentation"),
    ("did not find expected <document start>", "the document ended above", 'begin another one with a line "---"'),
    ("found unexpected end of stream", "quotes that are not closed", "close them"),
    ("expected ',' or ']'", "a list that is not closed", 'write "," between items and "]" at the end'),
    ("expected ',' or '}'", "a mapping that is not closed", 'write "," between entries and "}" at the end'),
    ("tab character that violates indentation", "a tab", "YAML is indented with spaces only"),
    ("invalid Unicode character escape", "half a character", "write the character itself, or \\U and eight digits"),
    ("incompatible YAML document", "a version of YAML that is not known", "remove the %YAML line"),
)
"""What the parser says, in words that need no knowledge of parsers."""

_SAID_AT_THE_START = frozenset(
    {
        "while scanning a simple key",
        "while scanning a quoted scalar",
        "while parsing a flow sequence",
        "while parsing a flow mapping",
    }
)
"""The parser notices these at their end; the person looks for their beginning."""


def _syntax_error(error: yaml.MarkedYAMLError, name: str, text: str) -> _Broken:
    """The parser's complaint, where and how a person can use it."""
    mark = error.context_mark if error.context in _SAID_AT_THE_START else error.problem_mark
    assert mark, "the parser says where"
    place = Place(source=name, line=mark.line + 1, column=mark.column + 1)
    problem = error.problem or ""
    if "cannot start any token" in problem:
        character = text[mark.index : mark.index + 1]
        if character == "\t":
            return _Broken(place, "a tab", "YAML is indented with spaces only")
        return _Broken(place, f"no value begins with {character}", "put the text in quotes")
    for said, message, hint in _SYNTAX:
        if said in problem:
            return _Broken(place, message, hint)
    context = f" {error.context}" if error.context else ""
    return _Broken(place, f"not YAML: {problem}{context}", "check the quotes and the indentation")

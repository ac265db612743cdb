"""What two releases say to each other: whether messages of the one still mean the same in the other.

During an upgrade agents, control planes and people's programs are of two releases, in any order, and what is stored is
older than whoever reads it. So three rules, which `problems` checks against what was released:

    a field's number keeps its type, its name (JSON and manifests have it) and its place in a oneof
    a number, or a value of an enumeration, that is gone is reserved, so that it never means something else
    a call keeps its messages, and whether they are streams

`python -m protos.wire VERSION` records what is spoken now, when a version is released.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import descriptor_pb2 as d
from google.protobuf import descriptor_pool, message, message_factory

from protos.orch.v1 import control_pb2, dispatcher_pb2, objects_pb2, options_pb2, trust_pb2

RELEASED = Path(__file__).parent / "released"
_FILES = (options_pb2, objects_pb2, trust_pb2, dispatcher_pb2, control_pb2)


def spoken() -> d.FileDescriptorSet:
    """What this release says."""
    found = d.FileDescriptorSet()
    seen: set[str] = set()
    for module in _FILES:
        _add(module.DESCRIPTOR, found, seen)
    return found


def _add(file: "object", found: d.FileDescriptorSet, seen: set[str]) -> None:
    """A file, behind those that it imports."""
    name: str = file.name  # type: ignore[attr-defined]  # a FileDescriptor, which the stubs do not know everywhere
    if name in seen:
        return
    seen.add(name)
    for imported in file.dependencies:  # type: ignore[attr-defined]
        _add(imported, found, seen)
    file.CopyToProto(found.file.add())  # type: ignore[attr-defined]


def released() -> Mapping[str, d.FileDescriptorSet]:
    """What was said by each version that an upgrade may begin at."""
    return {path.stem: d.FileDescriptorSet.FromString(path.read_bytes()) for path in sorted(RELEASED.glob("*.binpb"))}


class Release:
    """The messages of a release, to make and to read them as it does."""

    def __init__(self, said: d.FileDescriptorSet) -> None:
        pool = descriptor_pool.DescriptorPool()
        for file in said.file:
            pool.Add(file)
        self._pool = pool
        self._said = said

    def message(self, name: str) -> type[message.Message]:
        """The class of `orch.v1.Node`."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def names(self) -> list[str]:
        """All of them, of ours."""
        return sorted(name for name, _ in _messages(self._said) if name.startswith("orch."))

    def known(self, name: str, text: bytes) -> bytes:
        """What a program of this release understands of a message: the rest is as if it had not been said."""
        understood = self.message(name).FromString(text)
        understood.DiscardUnknownFields()
        return understood.SerializeToString()


def problems(before: d.FileDescriptorSet, after: d.FileDescriptorSet) -> list[str]:
    """Where `after` breaks what `before` has promised, a line each with the remedy."""
    messages, enums = dict(_messages(after)), dict(_enums(after))
    found = [line for name, one in _messages(before) for line in _of_message(name, one, messages.get(name))]
    found += [line for name, each in _enums(before) for line in _of_enum(name, each, enums.get(name))]
    return found + list(_of_calls(before, after))


def _of_message(name: str, before: d.DescriptorProto, after: d.DescriptorProto | None) -> Iterator[str]:
    if after is None:
        yield f"{name} is gone: keep the message while a release before may send it"
        return
    fields = {field.number: field for field in after.field}
    reserved = [(one.start, one.end) for one in after.reserved_range]
    for field in before.field:
        now = fields.get(field.number)
        if now is None and not any(start <= field.number < end for start, end in reserved):
            yield f"{name}.{field.name}: number {field.number} is gone; write `reserved {field.number};`"
        elif now is not None and _meaning(before, field) != _meaning(after, now):
            yield f"{name}.{field.name}: number {field.number} means something else now; give it a new number"


def _meaning(of: d.DescriptorProto, field: d.FieldDescriptorProto) -> tuple[object, ...]:
    """What must stay. `optional` is a oneof of its own, without a name that anybody sees."""
    in_oneof = field.HasField("oneof_index") and not field.proto3_optional
    oneof = of.oneof_decl[field.oneof_index].name if in_oneof else ""
    return field.name, field.type, field.type_name, field.label, field.proto3_optional, oneof


def _of_enum(name: str, before: d.EnumDescriptorProto, after: d.EnumDescriptorProto | None) -> Iterator[str]:
    values = {value.number: value.name for value in after.value} if after is not None else {}
    reserved = [(one.start, one.end) for one in after.reserved_range] if after is not None else []
    for value in before.value:
        is_reserved = any(start <= value.number <= end for start, end in reserved)  # both ends, unlike a field's
        if not is_reserved and values.get(value.number) != value.name:
            yield f"{name}.{value.name}: value {value.number} is gone or renamed; keep it, or reserve it"


def _of_calls(before: d.FileDescriptorSet, after: d.FileDescriptorSet) -> Iterator[str]:
    now = dict(calls(after))
    for name, call in calls(before):
        if now.get(name) != call:
            yield f"{name} is gone or takes other messages; add another call, and keep this one for a release"


def _messages(said: d.FileDescriptorSet) -> Iterator[tuple[str, d.DescriptorProto]]:
    for file in said.file:
        todo = [(file.package, one) for one in file.message_type]
        while todo:
            above, one = todo.pop()
            name = f"{above}.{one.name}"
            yield name, one
            todo += [(name, inner) for inner in one.nested_type]


def _enums(said: d.FileDescriptorSet) -> Iterator[tuple[str, d.EnumDescriptorProto]]:
    for file in said.file:
        yield from ((f"{file.package}.{one.name}", one) for one in file.enum_type)
    for above, message_ in _messages(said):
        yield from ((f"{above}.{one.name}", one) for one in message_.enum_type)


def calls(said: d.FileDescriptorSet) -> Iterator[tuple[str, tuple[object, ...]]]:
    """`orch.v1.Control/Apply` → what it takes and gives (`.orch.v1.ApplyRequest`), and whether each is a stream."""
    for file in said.file:
        for service in file.service:
            for call in service.method:
                shape = call.input_type, call.output_type, call.client_streaming, call.server_streaming
                yield f"{file.package}.{service.name}/{call.name}", shape


def main() -> None:
    """Records this release."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m protos.wire VERSION, such as 0.1")
    RELEASED.mkdir(exist_ok=True)
    (RELEASED / f"{sys.argv[1]}.binpb").write_bytes(spoken().SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()

"""The schema is sound, documented, and the generated code is what it says."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from protos import generate, kinds, schema, units
from protos.orch.v1 import control_pb2, dispatcher_pb2, options_pb2
from protos.orch.v1 import objects_pb2 as pb


def messages_below(message: Descriptor) -> Iterator[Descriptor]:
    """A message and those inside it, each once, without what the system sets and without the pairs that maps are."""
    seen: set[str] = set()
    waiting = [message]
    while waiting:
        found = waiting.pop()
        if found.full_name not in seen:
            seen.add(found.full_name)
            inner = [field.message_type for field in found.fields if not schema.rules(field).system]
            waiting += [below for below in inner if below is not None]
            if not found.GetOptions().map_entry:
                yield found


MESSAGES = list(messages_below(pb.Object.DESCRIPTOR))
FIELDS = [field for message in MESSAGES for field in message.fields]
WRITTEN = [
    field
    for message in {
        found.full_name: found
        for kind in kinds.written_by_people()
        for found in messages_below(kind.message.DESCRIPTOR)
    }.values()
    for field in message.fields
    if not schema.rules(field).system
]


READABLE = {
    FieldDescriptor.TYPE_BOOL,
    FieldDescriptor.TYPE_ENUM,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
}


def field(message: type, name: str) -> FieldDescriptor:
    found: FieldDescriptor = message.DESCRIPTOR.fields_by_name[name]  # type: ignore[attr-defined]
    return found


def test_the_generated_code_is_what_the_protos_say() -> None:
    """When this fails: `python -m protos.generate`."""
    assert generate.stale() == []


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.full_name)
def test_numbers_in_rules_can_be_read(field: FieldDescriptor) -> None:
    rules = schema.rules(field)
    bounds = [units.parse(rules.unit, text) for text in (rules.min, rules.max) if text]
    assert bounds == sorted(bounds)
    assert not rules.unit or all(bound >= 0 for bound in bounds), "no bytes, CPUs or durations are below zero"
    if rules.default and field.enum_type is not None:
        assert rules.default in schema.enum_words(field.enum_type)
    elif rules.default and field.type != FieldDescriptor.TYPE_STRING:
        value = units.parse(rules.unit, rules.default)
        assert not rules.min or value >= units.parse(rules.unit, rules.min)
        assert not rules.max or value <= units.parse(rules.unit, rules.max)
    assert bool(rules.pattern) == bool(rules.pattern_hint), "a pattern says in words what it asks for"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.full_name)
def test_a_zero_that_means_something_can_be_told_from_nothing(field: FieldDescriptor) -> None:
    """`attempts: 0` would silently be the default 5 if the field had no presence."""
    rules = schema.rules(field)
    number = field.cpp_type in {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_BOOL,
    }
    zero_is_right = not rules.min or units.parse(rules.unit, rules.min) == 0
    if number and zero_is_right and (rules.default or rules.required) and not rules.system:
        assert field.has_presence, f"make {field.full_name} `optional`"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.full_name)
def test_a_unit_belongs_to_a_number(field: FieldDescriptor) -> None:
    if schema.rules(field).unit:
        assert field.type == FieldDescriptor.TYPE_INT64, "quantities are int64"


@pytest.mark.parametrize("field", WRITTEN, ids=lambda field: field.full_name)
def test_what_people_write_is_documented(field: FieldDescriptor) -> None:
    """The comment is what `orchctl explain` prints."""
    assert schema.comment(field.full_name), "write a comment above the field in its proto"


@pytest.mark.parametrize("field", WRITTEN, ids=lambda field: field.full_name)
def test_the_reader_of_manifests_knows_the_type(field: FieldDescriptor) -> None:
    """The reader has no rule yet for fractions, for bytes, or for two fields of which only one may be said."""
    assert field.type in READABLE, "teach manifests/scalars.py and manifests/write.py this type"
    group = field.containing_oneof
    assert group is None or len(group.fields) == 1, "teach manifests/objects.py to refuse two of a oneof"


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_every_kind_is_documented(kind: kinds.Kind) -> None:
    assert schema.comment(kind.message.DESCRIPTOR.full_name)


@pytest.mark.parametrize("file", [control_pb2.DESCRIPTOR, dispatcher_pb2.DESCRIPTOR], ids=["control", "dispatcher"])
def test_every_call_is_documented(file: FileDescriptor) -> None:
    for service in file.services_by_name.values():
        for method in service.methods:
            assert schema.comment(method.full_name), method.full_name


@pytest.mark.parametrize(
    "message",
    [message for message in MESSAGES if message.full_name != pb.Object.DESCRIPTOR.full_name],
    ids=lambda message: message.name,
)
def test_names_in_manifests_are_camel_case_and_unique(message: Descriptor) -> None:
    names = schema.fields_by_yaml_name(message)
    assert len(names) == len(message.fields)
    assert all(name.isalnum() and name[0].islower() for name in names)


def test_words_of_an_enum() -> None:
    assert schema.enum_words(pb.RestartCondition.DESCRIPTOR) == {"any": 1, "on-failure": 2, "never": 3}
    assert schema.enum_word(pb.RestartCondition.DESCRIPTOR, 2) == "on-failure"
    assert schema.enum_word(pb.RestartCondition.DESCRIPTOR, 99) == "99"


def test_an_enum_without_an_unspecified_value_is_refused() -> None:
    """Zero is what a field holds that nobody has set."""
    with pytest.raises(AssertionError, match="value 0 has to be"):
        schema.enum_words(options_pb2.Unit.DESCRIPTOR)


def test_shapes_of_fields() -> None:
    env, args, ports = (field(pb.Container, name) for name in ("env", "args", "ports"))
    assert [schema.is_map(found) for found in (env, args, ports)] == [True, False, False]
    assert [schema.is_list(found) for found in (env, args, ports)] == [False, True, True]
    assert schema.yaml_name(field(pb.TaskTemplate, "stop_grace_period")) == "stopGracePeriod"


@pytest.mark.parametrize(
    ("message", "name", "said"),
    [
        (pb.ServiceSpec(), "replicas", False),
        (pb.ServiceSpec(replicas=0), "replicas", True),
        (pb.ServiceSpec(), "template", False),
        (pb.ServiceSpec(template=pb.TaskTemplate()), "template", True),
        (pb.Container(), "image", False),
        (pb.Container(image="a"), "image", True),
        (pb.Container(), "env", False),
        (pb.Container(env={"A": ""}), "env", True),
        (pb.Container(args=[""]), "args", True),
        (pb.Container(tty=False), "tty", False),
    ],
)
def test_whether_a_message_says_something(message: pb.Container, name: str, said: bool) -> None:
    assert schema.has_value(message, field(type(message), name)) is said

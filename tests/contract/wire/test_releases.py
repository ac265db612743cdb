"""Two releases understand each other, whichever was upgraded first; and what breaks that is found."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2 as d
from google.protobuf import message

from controlplane.store import memory
from protos import wire
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc
from protos.orch.v1 import dispatcher_pb2 as dpb
from tests.support import aio, api_world, instances

NOW = wire.Release(wire.spoken())
RELEASED = wire.released()
DEPTH = 4
"""Deeper than this, messages hold themselves."""


def filled(made: message.Message, depth: int = DEPTH) -> message.Message:
    """With a value in every field that can have one beside the others."""
    for field in made.DESCRIPTOR.fields:
        is_message = field.type == field.TYPE_MESSAGE
        if (is_message and depth == 0) or (field.containing_oneof and made.WhichOneof(field.containing_oneof.name)):
            continue
        if is_message and field.message_type.GetOptions().map_entry:
            _fill_map(getattr(made, field.name), field.message_type, depth)
        elif is_message:
            inner = getattr(made, field.name).add() if field.is_repeated else getattr(made, field.name)
            inner.SetInParent()
            filled(inner, depth - 1)
        elif field.is_repeated:
            getattr(made, field.name).append(_value(field))
        else:
            setattr(made, field.name, _value(field))
    return made


def _fill_map(there: Any, entry: Any, depth: int) -> None:
    key, value = _value(entry.fields_by_name["key"]), entry.fields_by_name["value"]
    if value.type == value.TYPE_MESSAGE:
        filled(there[key], depth - 1)
    else:
        there[key] = _value(value)


def _value(field: Any) -> object:
    """One that is not the default, so that it is sent."""
    if field.type == field.TYPE_ENUM:
        return field.enum_type.values[-1].number
    kinds: dict[int, object] = {
        field.TYPE_STRING: f"a {field.name}",
        field.TYPE_BYTES: b"\0\xff",
        field.TYPE_BOOL: True,
    }
    return kinds.get(field.type, field.number)


def test_there_is_a_release_to_compare_with() -> None:
    assert RELEASED, "record one: python -m protos.wire VERSION"


@pytest.mark.parametrize("version", RELEASED)
def test_nothing_of_a_release_means_something_else_now(version: str) -> None:
    assert wire.problems(RELEASED[version], wire.spoken()) == []


@pytest.mark.parametrize("version", RELEASED)
def test_every_message_reads_the_same_on_both_sides_and_survives_the_other(version: str) -> None:
    """What the other does not know is kept when it stores or passes on a message, and comes back whole."""
    before = wire.Release(RELEASED[version])
    assert len(before.names()) > 50
    for name in before.names():
        old, new = before.message(name), NOW.message(name)
        said = filled(old())
        assert old.FromString(new.FromString(said.SerializeToString()).SerializeToString()) == said, name
        said = filled(new())
        assert new.FromString(old.FromString(said.SerializeToString()).SerializeToString()) == said, name


# The judge can fail ---------------------------------------------------------------------------------------------------


def changed(change: Callable[[d.DescriptorProto], object]) -> list[str]:
    """What is said of a change to `Meta`."""
    after = wire.spoken()
    change(_meta(after))
    return wire.problems(wire.spoken(), after)


def _meta(said: d.FileDescriptorSet) -> d.DescriptorProto:
    return next(one for file in said.file for one in file.message_type if one.name == "Meta")


def _removed(one: d.DescriptorProto) -> None:
    del one.field[0]


def _reserved(one: d.DescriptorProto) -> None:
    number = one.field[0].number
    del one.field[0]
    one.reserved_range.add(start=number, end=number + 1)


def _retyped(one: d.DescriptorProto) -> None:
    one.field[0].type = d.FieldDescriptorProto.TYPE_BYTES


def _renamed(one: d.DescriptorProto) -> None:
    one.field[0].name = "other"


def _added(one: d.DescriptorProto) -> None:
    one.field.add(name="other", number=1000, type=d.FieldDescriptorProto.TYPE_BOOL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_removed, "is gone; write `reserved"),
        (_retyped, "means something else now; give it a new number"),
        (_renamed, "means something else now"),
        (_reserved, ""),
        (_added, ""),
    ],
)
def test_a_change_that_breaks_is_found_and_one_that_does_not_is_not(
    change: Callable[[d.DescriptorProto], object], said: str
) -> None:
    found = changed(change)
    assert [line for line in found if line.startswith("orch.v1.Meta.") and said in line] == found
    assert bool(found) == bool(said)


def test_a_call_that_is_gone_and_a_value_that_is_renamed_are_found() -> None:
    after = wire.spoken()
    for file in after.file:
        for service in file.service:
            if service.name == "Control":
                del service.method[0]
        for enum in file.enum_type:
            if enum.name == "Availability":
                enum.value[1].name = "OTHER"
    found = wire.problems(wire.spoken(), after)
    assert [line.partition(" is gone")[0] for line in found] == [
        "orch.v1.Availability.AVAILABILITY_ACTIVE: value 1",
        "orch.v1.Control/Apply",
    ]


# With a server and an agent -------------------------------------------------------------------------------------------


class Speaking:
    """A channel to which only what a release knew is said, and of which only that is heard."""

    def __init__(self, channel: Any, release: wire.Release) -> None:
        self._channel = channel
        self._release = release

    def __getattr__(self, shape: str) -> Callable[..., object]:
        """`unary_unary` and its three siblings, as stubs call them."""
        make = getattr(self._channel, shape)

        def call(path: str, request_serializer: object, response_deserializer: Any, **more: Any) -> object:
            del request_serializer
            return make(
                path, request_serializer=self._said, response_deserializer=self._heard(response_deserializer), **more
            )

        return call

    def _said(self, each: message.Message) -> bytes:
        return self._release.known(each.DESCRIPTOR.full_name, each.SerializeToString())

    def _heard(self, read: Callable[[bytes], message.Message]) -> Callable[[bytes], message.Message]:
        def known(text: bytes) -> message.Message:
            return read(self._release.known(read(text).DESCRIPTOR.full_name, text))

        return known


@aio.bounded(60)
@pytest.mark.parametrize("version", RELEASED)
async def test_an_old_agent_and_an_old_client_work_with_a_new_control_plane(version: str, tmp_path: Path) -> None:
    """And a new agent with an old control plane: neither hears anything that the release did not know."""
    release = wire.Release(RELEASED[version])
    store = memory.MemoryStore()
    async with instances.instances(store, tmp_path, "one") as (one,), asyncio.TaskGroup() as group:
        agent = instances.Agent("n1", lambda channel: Speaking(channel, release))  # type: ignore[arg-type,return-value]
        running = group.create_task(agent.run(one.address))
        async with grpc.aio.insecure_channel(one.address) as channel:
            stub: Any = control_pb2_grpc.ControlStub(Speaking(channel, release))  # type: ignore[arg-type]
            await stub.Apply(api_world.apply_request(api_world.service(replicas=2)))
            await aio.until(lambda: len(agent.running) == 2, what="the agent runs both", timeout_s=20)
            listed = await stub.List(pb.ListRequest(kind="node"))
            assert [each.node.meta.name for each in listed.objects] == ["n1"]
        running.cancel()


# What a release before makes of what this one says first --------------------------------------------------------------


@pytest.mark.parametrize("version", RELEASED)
def test_a_leader_of_a_release_before_takes_an_agent_that_leaves_for_one_that_says_nothing(version: str) -> None:
    """It ends the session of an agent that sends an empty message, which is all that the agent waits for."""
    leaving = dpb.AgentMessage(leaving=dpb.Leaving(back_within=30_000))
    heard = wire.Release(RELEASED[version]).message("orch.v1.AgentMessage").FromString(leaving.SerializeToString())
    is_known = "leaving" in heard.DESCRIPTOR.fields_by_name
    assert heard.WhichOneof("message") == ("leaving" if is_known else None)

"""Messages that are honest but for one text, which is as long as what a whole message may be: up to 2 MB.

The promise under test: a session with such a message goes on or ends, such an object is taken or refused, both in words
and in time, and the control plane leads as before. What was sent last is told with whatever comes out wrong, also when
that has ended the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from protos.ending import Ending
from protos.orch.v1 import control_pb2, dispatcher_pb2, objects_pb2
from tests.support import aio, api_world, doorfuzz, trusted

if TYPE_CHECKING:
    from trust.folder import Material

SIZES: Final = (60, 100_000, 700_000, 1_300_000, 2_000_000)
"""In bytes: as people write, below a commit of the store (1.4 MB), more than one when it is in it twice, beyond one."""
LAST: Final = 1_000_000
"""The number of a report that is sent after what is tried: once it is acknowledged, the session has taken all of it."""
APPLY: Final = next(one for one in doorfuzz.METHODS if one.name == "Apply")
IMAGE: Final = "hello:1"
_UNKNOWN: Final = b"\xfa\x7f"
"""The tag of a text with the number 2047, which no message has."""
Way = tuple[FieldDescriptor, ...]


# Messages -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Swollen:
    """`what`: the path of the text, and its length."""

    what: str
    message: Any


def in_every_size(kind: type[Message]) -> Sequence[tuple[Way, int]]:
    """The ways to every text of a message, with each size."""
    return list(itertools.product(_ways(kind.DESCRIPTOR), SIZES))


def _ways(kind: Descriptor) -> Sequence[Way]:
    """To every text of a message, those in maps and lists, too; the empty one is to a field that nobody knows."""
    return [(), *_texts(kind, (kind,))]


def _texts(kind: Descriptor, above: tuple[Descriptor, ...]) -> Iterator[Way]:
    for each in kind.fields:
        if each.message_type is None:
            if each.cpp_type == FieldDescriptor.CPPTYPE_STRING:
                yield (each,)
        elif each.message_type not in above:
            for rest in _texts(each.message_type, (*above, each.message_type)):
                yield (each, *rest)


def swollen(honest: Message, way: Way, size: int) -> Swollen:
    """The message with a text of so many bytes at the end of a way."""
    made = type(honest)()
    made.CopyFrom(honest)
    if way:
        _put(made, way, "x" * size)
    else:
        made.MergeFromString(_UNKNOWN + doorfuzz._varint(size) + b"x" * size)
    path = ".".join([honest.DESCRIPTOR.name, *(each.name for each in way)]) if way else f"{honest.DESCRIPTOR.name}.2047"
    return Swollen(what=f"{path} of {size} bytes", message=made)


def _put(into: Any, way: Way, text: str) -> None:
    each, *rest = way
    value = getattr(into, each.name)
    if each.message_type is not None and each.message_type.GetOptions().map_entry:
        _put_entry(value, rest, text)
    elif each.is_repeated:
        if rest:
            _put(value[0] if value else value.add(), tuple(rest), text)
        else:
            value.append(text)
    elif rest:
        _put(value, tuple(rest), text)
    else:
        setattr(into, each.name, text.encode() if each.type == FieldDescriptor.TYPE_BYTES else text)


def _put_entry(entries: Any, way: list[FieldDescriptor], text: str) -> None:
    """As a key, as a value, or somewhere in a value."""
    each, *rest = way
    if rest:
        _put(entries["x"], tuple(rest), text)
    elif each.name == "value":
        entries["x"] = text
    else:
        other = each.containing_type.fields_by_name["value"]
        if other.message_type is None:
            entries[text] = other.default_value
        else:
            entries.get_or_create(text)


# Whom they are sent to ------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Target:
    """A cluster without limits on how much one may ask for. `sent`: what it was sent last; the store is written to a
    moment later.
    """

    fuzzed: doorfuzz.Target
    sent: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    outcomes: Counter[str] = field(default_factory=Counter)
    _names: Iterator[str] = field(default_factory=lambda: (f"n{number}" for number in itertools.count(2)))

    @property
    def cluster(self) -> trusted.Cluster:
        return self.fuzzed.cluster

    async def new_node(self) -> Material:
        """One that has never called."""
        return await self.cluster.join(next(self._names))

    async def register(self, own: Material, one: Swollen) -> bool:
        """A session that begins with this registration; whether it was taken. Raises AssertionError."""
        self.sent.append(one.what)
        taken = await self._session(own, dispatcher_pb2.AgentMessage(register=one.message))
        self._check(one.what)
        return taken

    async def say(self, own: Material, one: Swollen, kind: str) -> None:
        """A session in which an agent says this. Raises AssertionError."""
        self.sent.append(one.what)
        said = dispatcher_pb2.AgentMessage()
        getattr(said, kind).CopyFrom(one.message)
        await self._session(own, trusted.register(own), said)
        self._check(one.what)

    async def _session(self, own: Material, *messages: dispatcher_pb2.AgentMessage) -> bool:
        """To its end, or until it has taken all; whether it has."""
        everything = [*messages, dispatcher_pb2.AgentMessage(statuses=dispatcher_pb2.StatusReport(sequence=LAST))]
        async with asyncio.timeout(doorfuzz.ANSWER_S), self.cluster.dispatcher(own) as stub:
            call: Any = stub.Session()  # type: ignore[call-arg]  # the stubs want an iterator
            ending = Ending(call)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it has ended meanwhile
                for message in everything:
                    await call.write(message)
            if await self._takes_all(call):
                self.outcomes["taken"] += 1
                await self._is_written(own)
                call.cancel()
                return True
            self.outcomes["ended"] += 1
            _check_words(*await ending.status())
            return False

    async def _takes_all(self, call: Any) -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for message in call:
                if message.acknowledged.sequence == LAST:
                    return True
        return False

    async def _is_written(self, own: Material) -> None:
        """The node is ready by the store: what it said of itself is there."""
        await aio.until(
            lambda: self._state(own.identity.name) == objects_pb2.NODE_STATE_READY,
            what=f"{self.sent[-1]}: its node is ready",
            timeout_s=20,
        )

    def _state(self, node_id: str) -> int:
        node = self.cluster.instance.cache.snapshot().get(objects_pb2.Node, node_id)
        return node.status.state if node is not None else 0

    async def given_task(self, own: Material) -> str:
        """The id of a task that the leader has given to this node."""
        request = control_pb2.ApplyRequest(objects=[objects_pb2.Object(service=api_world.service(replicas=1))])
        async with self.cluster.control(self.cluster.admin) as stub, trusted.session(self.cluster, own):
            await stub.Apply(request)
            await aio.until(lambda: bool(self._given(own)), what="the node has a task", timeout_s=20)
        return self._given(own)[0]

    def _given(self, own: Material) -> Sequence[str]:
        tasks = self.cluster.instance.cache.snapshot().all(objects_pb2.Task).values()
        return [task.meta.id for task in tasks if task.node_id == own.identity.name]

    async def apply(self, one: Swollen) -> None:
        """To the end of the object, which is deleted again when it was taken. Raises AssertionError."""
        self.sent.append(one.what)
        kind = one.message.DESCRIPTOR.name.lower()
        request = control_pb2.ApplyRequest(objects=[objects_pb2.Object(**{kind: one.message})])
        taken = self.fuzzed.codes[grpc.StatusCode.OK]
        await self.fuzzed.ask(doorfuzz.Case(method=APPLY, caller=0, messages=(request.SerializeToString(),)))
        if self.fuzzed.codes[grpc.StatusCode.OK] == taken:
            self.outcomes["refused"] += 1
        else:
            self.outcomes["taken"] += 1
            await self._delete(kind, one)
        self._check(one.what)

    async def _delete(self, kind: str, one: Swollen) -> None:
        """Once the leader has made of it what it makes of a service: a revision, and a task that waits for a node."""
        meta = one.message.meta
        if kind == "service":
            await aio.until(lambda: self._all(objects_pb2.Task), what=f"{one.what}: it has a task", timeout_s=20)
        reference = control_pb2.ObjectReference(kind=kind, namespace=meta.namespace or "default", name=meta.name)
        async with self.cluster.control(self.cluster.admin) as stub:
            await stub.Delete(control_pb2.DeleteRequest(reference=reference))
        await aio.until(lambda: not self._all(type(one.message)), what=f"{one.what}: it is gone", timeout_s=20)

    def _all(self, kind: type[Any]) -> bool:
        """Whether there is any."""
        return bool(self.cluster.instance.cache.snapshot().all(kind))

    def _check(self, what: str) -> None:
        assert self.cluster.instance.leader().here, f"{what}: the instance does not lead any more"
        assert not self.fuzzed.tripped, f"{what}: {self.fuzzed.tripped[0][:500]}"


def _check_words(code: grpc.StatusCode, details: str) -> None:
    assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, f"{code.name} {details[:500]}"
    assert details.isprintable(), f"not one printable line: {details[:500]!r}"
    assert len(details) < 2_000, f"{len(details)} characters long"


@contextlib.asynccontextmanager
async def target(folder: Path) -> AsyncIterator[Target]:
    """A cluster of one instance over a store in memory. What ends it is told with what was sent last."""
    made: list[Target] = []
    try:
        async with doorfuzz.target(folder) as fuzzed:
            made.append(Target(fuzzed=fuzzed))
            async with fuzzed.cluster.control(fuzzed.cluster.admin) as stub:
                await stub.ImportImage(iter(trusted.archive_of_one_file(IMAGE)))
            yield made[0]
    except BaseException as error:
        error.add_note(f"what was sent last: {'; '.join(made[0].sent) if made else 'nothing'}")
        raise

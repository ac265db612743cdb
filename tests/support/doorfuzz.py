"""Hostile messages by the thousand, for every call of every service of a real instance, over TLS.

The promise under test: whatever the bytes, a call is answered or refused with one printable line, in time; nobody
trips (`an error inside the control plane`), and nothing is kept of it. `ask` raises `AssertionError` with what came out
wrong, and `case` makes the messages of a number again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog.testing
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2

from controlplane.core import limits
from controlplane.core.trust import rules
from controlplane.store import memory
from protos.ending import Ending
from protos.orch.v1 import control_pb2, dispatcher_pb2, trust_pb2
from tests.support import trusted
from trust.core.identity import Role

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from trust.folder import Material

CALLERS = (Role.ADMIN, Role.EDITOR, Role.NODE)
ANSWER_S = 20.0
"""For a call with one answer; the machine may be busy."""
STREAM_S = 0.1
"""How long a stream is listened to."""
SERVICES = tuple(
    service
    for file in (control_pb2, dispatcher_pb2, trust_pb2, health_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
METHODS: Sequence[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
WITHOUT_BOUNDS = limits.parse(
    [f"{kind}.{what}=1000000000" for kind in limits.Kind for what in ("burst", "per_second", "calls", "streams")]
)
_TEXTS = (
    *("", "web", "default", "service", "node", "task", "event", "hello:1", "n1", "n1-name", "admin", "root", "*", "%s"),
    *(
        "sha256:" + "a" * 64,
        "sha256:" + "A" * 64,
        "../../etc/passwd",
        "/",
        "\0",
        "\n\n",
        "\x1b[31m",
        "\u202e",
        "ß" * 40,
    ),
    *("x" * 254, "x" * 5_000, "0", "-1", "1e999", "nan", "${A}", "{{a}}", "a=b,c!=d", "10.0.0.1/33", "::1", "9" * 11),
    *(
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "orch.1.node.x.y",
        "\U0001f600",
    ),
)
_NUMBERS = (0, 1, 2, -1, 7, 1000, 2**15, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63))
_UNSIGNED = (0, 1, 2, 1000, 2**16, 2**32 - 1)
_DEPTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is sent: to which call, as whom (an index), and the messages."""

    method: MethodDescriptor
    caller: int
    messages: tuple[bytes, ...]

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def case(seed: int, number: int) -> Case:
    """The messages of one case. Streams take longer, so there are fewer of them."""
    dice = random.Random(f"{seed}/{number}")
    method = METHODS[number % len(METHODS)]
    if (method.server_streaming or method.client_streaming) and dice.random() < 0.9:
        method = dice.choice([one for one in METHODS if not (one.server_streaming or one.client_streaming)])
    count = dice.choice((0, 1, 1, 2, 3)) if method.client_streaming else 1
    messages = tuple(payload(dice, method.input_type) for _ in range(count))
    made = Case(method=method, caller=dice.randrange(3), messages=messages)
    allowed = [index for index, role in enumerate(CALLERS) if role in rules.RULES[made.path].roles]
    return replace(made, caller=dice.choice(allowed)) if allowed and dice.random() < 0.9 else made


# Messages -------------------------------------------------------------------------------------------------------------


def payload(dice: random.Random, kind: Descriptor) -> bytes:
    match dice.randrange(10):
        case 0:
            return dice.randbytes(dice.choice((1, 2, 5, 50, 1000)))
        case 1:
            return _wire(dice, kind)
        case 2 | 3:
            return damaged(dice, message(dice, kind).SerializeToString())
        case _:
            return bytes(message(dice, kind).SerializeToString())


def message(dice: random.Random, kind: Descriptor, depth: int = 0) -> Message:
    """One whose every field is of its type, and whose every value is what nobody would write."""
    made = message_factory.GetMessageClass(kind)()
    for each in kind.fields:
        if dice.random() < (0.6 if depth < 2 else 0.3):
            _set(dice, made, each, depth)
    return made


def _set(dice: random.Random, made: Message, field: FieldDescriptor, depth: int) -> None:
    if field.message_type is not None and (depth >= _DEPTH or field.message_type.GetOptions().map_entry):
        if field.message_type.GetOptions().map_entry and field.message_type.fields[1].message_type is None:
            entries = getattr(made, field.name)
            key, value = field.message_type.fields
            for _ in range(dice.choice((1, 2, 50))):
                entries[_scalar(dice, key)] = _scalar(dice, value)
        return
    if field.is_repeated:
        count = dice.choice((1, 1, 2, 3)) if dice.random() < 0.98 else 2_000 if field.message_type is None else 300
        values = getattr(made, field.name)
        for _ in range(count):
            if field.message_type is not None:
                values.add().CopyFrom(message(dice, field.message_type, depth + 2))
            else:
                values.append(_scalar(dice, field))
    elif field.message_type is not None:
        getattr(made, field.name).CopyFrom(message(dice, field.message_type, depth + 1))
    else:
        setattr(made, field.name, _scalar(dice, field))


def _scalar(dice: random.Random, field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = dice.choice(_TEXTS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return dice.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return dice.choice((0, 1, 2, 3, 99, -1, 2**31 - 1))
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return dice.choice(_UNSIGNED)
        case FieldDescriptor.CPPTYPE_INT32:
            return dice.choice([number for number in _NUMBERS if -(2**31) <= number < 2**31])
        case FieldDescriptor.CPPTYPE_INT64:
            return dice.choice(_NUMBERS)
        case _:
            return dice.choice((0.0, -1.0, 1e300, float("inf"), float("-inf"), float("nan")))


def damaged(dice: random.Random, data: bytes) -> bytes:
    """A few bytes are others: lengths that lie, text that is no UTF-8, fields that nobody knows."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[place : place + dice.randint(1, 20)]
            case 2:
                changed[place:place] = dice.choice(
                    (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\x80" * 12, b"\xf8\x7f\x01")
                )
            case _:
                changed[place:place] = changed[: dice.randint(0, 200)]
    return bytes(changed)


def _wire(dice: random.Random, kind: Descriptor) -> bytes:
    """Fields by their numbers, of whatever wire type (varint 0, fixed 1 and 5, bytes 2, groups 3 and 4)."""
    numbers = [field.number for field in kind.fields] + [1, 15, 16, 2047, 2**29 - 1, 0]
    match dice.randrange(4):
        case 0:  # nested as deep as it goes
            data = b""
            number = dice.choice(numbers)
            for _ in range(dice.choice((50, 99, 101, 1_000))):
                data = _varint(number << 3 | 2) + _varint(len(data)) + data
            return data
        case 1:  # groups that are opened and not closed
            return b"".join(_varint(dice.choice(numbers) << 3 | 3) for _ in range(dice.choice((10, 5_000))))
        case 2:  # one field, very often
            field = _varint(dice.choice(numbers) << 3 | 2) + dice.choice((b"\0", b"\2\x08\1", b"\1a"))
            return field * dice.choice((1_000, 20_000))
        case _:
            return b"".join(_field(dice, dice.choice(numbers)) for _ in range(dice.randint(1, 30)))


def _field(dice: random.Random, number: int) -> bytes:
    wire = dice.randrange(8)
    key = _varint(number << 3 | wire)
    match wire:
        case 0:
            return key + _varint(dice.choice((0, 1, 2**32, 2**64 - 1)))
        case 1:
            return key + dice.randbytes(8)
        case 2:
            body = dice.choice((b"", b"web", b"\xff\xfe", dice.randbytes(30), b"\n\3web"))
            return key + _varint(len(body) + (dice.random() < 0.1) * 2**31) + body
        case 5:
            return key + dice.randbytes(4)
        case _:
            return key


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


# A cluster to send them to --------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Target:
    """A cluster, and channels of an admin, an editor of one namespace and a node."""

    cluster: trusted.Cluster
    channels: tuple[grpc.aio.Channel, ...]
    tripped: list[str]
    """What the instance has logged as an error."""
    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)

    async def ask(self, one: Case) -> None:
        """One call, to its end. Raises AssertionError."""
        channel = self.channels[one.caller]
        if one.method.client_streaming and one.method.server_streaming:
            call: Any = channel.stream_stream(one.path)(iter(one.messages), timeout=STREAM_S)
        elif one.method.client_streaming:
            call = channel.stream_unary(one.path)(iter(one.messages), timeout=ANSWER_S)
        elif one.method.server_streaming:
            call = channel.unary_stream(one.path)(one.messages[0], timeout=STREAM_S)
        else:
            call = channel.unary_unary(one.path)(one.messages[0], timeout=ANSWER_S)
        ending = Ending(call)
        with contextlib.suppress(grpc.aio.AioRpcError):
            if one.method.server_streaming:
                async for _ in call:
                    continue
            else:
                await call
        self._check(one, *await ending.status())

    def _check(self, one: Case, code: grpc.StatusCode, details: str) -> None:
        self.codes[code] += 1
        assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, f"{one.path}: {code.name} {details}"
        assert details.isprintable(), f"{one.path}: not one printable line: {details!r}"
        assert len(details) < 2_000, f"{one.path}: {len(details)} characters long"
        late = code is grpc.StatusCode.DEADLINE_EXCEEDED and not one.method.server_streaming
        assert not late, f"{one.path}: no answer within {ANSWER_S:g} s"


@contextlib.asynccontextmanager
async def target(folder: Path) -> AsyncIterator[Target]:
    """A cluster of one instance over a store in memory."""
    store = memory.MemoryStore(history_limit=2_000)
    tripped: list[str] = []
    with structlog.testing.capture_logs(processors=[Errors(tripped)]):
        async with trusted.cluster(folder, store, limits=WITHOUT_BOUNDS) as made, contextlib.AsyncExitStack() as stack:
            callers: list[Material] = [made.admin, await made.person("eve", "editor", "shop"), await made.join("n1")]
            channels = [await stack.enter_async_context(made.channel(own)) for own in callers]
            yield Target(cluster=made, channels=tuple(channels), tripped=tripped)


class Errors:
    """Keeps what is logged as an error, and drops all else."""

    def __init__(self, into: list[str]) -> None:
        self._into = into

    def __call__(self, logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """As structlog calls its processors."""
        del logger
        if method in {"error", "critical", "exception"}:
            self._into.append(str(event))
        raise structlog.DropEvent


async def send(seed: int, numbers: range, to: Target, at_once: int = 8) -> None:
    """All of them, some at a time. Raises AssertionError with what makes the one again that went wrong."""
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            one = case(seed, number)
            try:
                await to.ask(one)
            except AssertionError as error:
                raise AssertionError(f"doorfuzz.case({seed}, {number}): {error}") from error

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())
    assert not to.tripped, "\n".join(to.tripped[:5])


def memory_mb(pid: int | str = "self") -> int:
    """What a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

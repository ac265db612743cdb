"""Hostile knocks at the door, the one port that asks for no certificate: whatever comes through it before a token is
believed.

The promise under test: whatever the bytes, and however they come, the door answers with one message of its own or hangs
up, in time; nobody trips, and nothing is kept of it. `knock` raises `AssertionError` with what came out wrong, and
`case` makes the knock of a number again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog.testing

from controlplane.core.trust.knocking import Bound, Knocking
from controlplane.store import memory
from controlplane.trust.audit import Audit
from controlplane.trust.door import Door
from controlplane.trust.doorbook import DoorBook
from protos.orch.v1 import trust_pb2 as pb
from tests.support import doorfuzz, trusted
from trust import errands, framing, joining

ANSWER_S: Final = 20.0
"""Until the door has hung up; the machine may be busy."""
WIDE: Final = Bound(at_once=1_000_000, burst=1_000_000_000, per_second=1e9)
_LANGUAGES: Final = (
    b"GET / HTTP/1.1\r\nHost: door\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knock:
    """What is sent, in pieces of some bytes. `patient`: whoever knocks waits for the answer; the others go at once.

    `plain`: it is sent where a handshake is expected.
    """

    data: bytes
    piece: int
    patient: bool
    plain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What whoever knocks has got hold of: a token, and a certificate request that is as it should be."""

    token: str
    request: str


def case(seed: int, number: int, known: Known) -> Knock:
    """The knock of a number."""
    dice = random.Random(f"{seed}/{number}")
    plain = dice.random() < 0.05
    data = dice.choice(_LANGUAGES) + dice.randbytes(dice.choice((0, 3, 500))) if plain else _said(dice, known)
    whole = len(data) >= framing.HEAD_BYTES and _complete(data)
    return Knock(
        data=data,
        piece=dice.choice((1, 7, 1_000, 100_000)) if len(data) < 2_000 else 20_000,
        patient=whole and dice.random() < 0.9,
        plain=plain,
    )


def _complete(data: bytes) -> bool:
    """Whether the door has what it waits for, so that it ends the connection by itself."""
    size = int.from_bytes(data[: framing.HEAD_BYTES], "big")
    return size > framing.MAX_MESSAGE_BYTES or len(data) >= framing.HEAD_BYTES + size


def _said(dice: random.Random, known: Known) -> bytes:
    match dice.randrange(8):
        case 0:
            return dice.choice(_LANGUAGES) + dice.randbytes(dice.choice((1, 4, 5, 100, 5_000)))
        case 1:  # a length that lies
            body = doorfuzz.payload(dice, pb.DoorRequest.DESCRIPTOR)
            wrong = dice.choice((0, 1, len(body) - 1, len(body) + 1, 2**16, 2**16 + 1, 2**31, 2**32 - 1))
            return max(0, wrong).to_bytes(framing.HEAD_BYTES, "big") + body
        case 2:  # more than one message, as large as they may be
            body = dice.choice((b"\xff", b"\x0a\x00", b"\x12")) * (framing.MAX_MESSAGE_BYTES // 2)
            return _framed(body) * dice.choice((1, 2))
        case 3 | 4:
            return _framed(doorfuzz.payload(dice, pb.DoorRequest.DESCRIPTOR))
        case _:
            return _framed(pb.DoorRequest(join=_join(dice, known)).SerializeToString())


def _framed(body: bytes) -> bytes:
    kept = body[: framing.MAX_MESSAGE_BYTES]
    return len(kept).to_bytes(framing.HEAD_BYTES, "big") + kept


def _join(dice: random.Random, known: Known) -> pb.JoinRequest:
    """With a token that is good or nearly so, and everything else as nobody would write it."""
    made: Any = doorfuzz.message(dice, pb.JoinRequest.DESCRIPTOR)
    kind = dice.randrange(4)
    made.token = known.token if kind else _text(dice, known.token)
    if kind > 1:
        made.certificate_request = _request(dice, known.request)
    if kind == 3:
        made.name = dice.choice((f"n{dice.randrange(20)}", made.name))
        made.node_name = dice.choice((f"name{dice.randrange(20)}", made.node_name))
    return made  # type: ignore[no-any-return]  # a class that is made from its description


def _request(dice: random.Random, pem: str) -> str:
    """One that is damaged; seldom one that a certificate is made of, since that starts a process."""
    if dice.random() < 0.05:
        return pem
    head, body, tail = pem.partition("\n")[0], pem.splitlines()[1:-1], pem.splitlines()[-1]
    text = "".join(body)
    match dice.randrange(4):
        case 0:
            text = text[: dice.randrange(len(text))]
        case 1:  # the lengths of what it consists of are near its beginning
            place = dice.randrange(12)
            text = text[:place] + dice.choice("AZaz09+/") + text[place + 1 :]
        case 2:
            text = text * dice.choice((2, 20)) if dice.random() < 0.5 else text + "\0\n=\u202e"
        case _:
            return _text(dice, pem)
    return f"{head}\n{text}\n{tail}\n"


def _text(dice: random.Random, text: str) -> str:
    """Damaged, and text all the same."""
    return doorfuzz.damaged(dice, text.encode()).decode(errors="ignore")


# A door to knock at ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Target:
    """A door without bounds on how often."""

    cluster: trusted.Cluster
    port: int
    known: Known
    knocking: Knocking
    tripped: list[str]
    """What the instance has logged as an error, and what nobody has caught."""
    outcomes: Counter[str] = field(default_factory=Counter)

    async def knock(self, one: Knock) -> None:
        """To its end. Raises AssertionError."""
        context = None if one.plain else joining._believing_anybody()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            answer = await self._exchange(one, reader, writer)
        finally:
            writer.transport.abort()
        self.outcomes[_outcome(answer) if one.patient and not one.plain else "not waited for"] += 1

    async def _exchange(self, one: Knock, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            async with asyncio.timeout(ANSWER_S):
                with contextlib.suppress(ConnectionError):  # it has read enough, and hung up
                    for start in range(0, len(one.data), one.piece):
                        writer.write(one.data[start : start + one.piece])
                        await writer.drain()
                    return await reader.read() if one.patient and not one.plain else b""
        except TimeoutError:
            raise AssertionError(f"the door has not hung up within {ANSWER_S:g} s") from None
        return b""


def _outcome(answer: bytes) -> str:
    """What the door has answered. Raises AssertionError when it is none of its messages."""
    if not answer:
        return "hung up"
    size = framing.length(answer[: framing.HEAD_BYTES])
    assert len(answer) == framing.HEAD_BYTES + size, "one message, and then the end"
    response = framing.unpack(pb.DoorResponse, answer[framing.HEAD_BYTES :])
    for text in (response.refusal.message, response.refusal.hint):
        assert text.isprintable(), f"not one printable line: {text!r}"
        assert len(text) < 2_000, f"{len(text)} characters long"
    said = response.WhichOneof("response")
    assert said is not None, "it says something"
    assert said != "refusal" or response.refusal.message, "a refusal says why"
    return said


@contextlib.asynccontextmanager
async def target(folder: Path) -> AsyncIterator[Target]:
    """A cluster of one instance over a store in memory, with another door beside its own."""
    tripped: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: tripped.append(str(context)))
    knocking = Knocking(one=WIDE, all=WIDE)
    try:
        with structlog.testing.capture_logs(processors=[doorfuzz.Errors(tripped)]):
            async with trusted.cluster(folder, memory.MemoryStore(history_limit=2_000)) as made:
                mine = made.standing
                book = DoorBook(Audit(folder / "knocks.log", made.now_ms, mine.book.add))
                door = Door(mine.membership, mine.registry, mine.folder, book, made.now_ms, knocking)
                _, request = await errands.request_async()
                known = Known(token=made.tokens["node_token"], request=request)
                async with door.serving(["127.0.0.1:0"]) as (port,):
                    yield Target(cluster=made, port=port, known=known, knocking=knocking, tripped=tripped)
    finally:
        loop.set_exception_handler(None)


async def send(seed: int, numbers: range, to: Target, at_once: int = 8) -> None:
    """All of them, some at a time. Raises AssertionError with what makes the one again that went wrong."""
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            try:
                await to.knock(case(seed, number, to.known))
            except (AssertionError, OSError, framing.Broken) as error:
                raise AssertionError(f"knockfuzz.case({seed}, {number}, …): {error!r}") from error

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())
    gc.collect()  # what a task has raised, and nobody has asked for, is told when the task goes
    assert not to.tripped, "\n".join(to.tripped[:5])

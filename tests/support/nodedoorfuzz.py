"""Hostile calls, frames and requests for the doors of a node: its port for layers of images, with its health, and its
page of metrics.

The promise under test: whatever comes, and whoever sends it, is answered or refused with one printable line that says
what is wrong, in time, or hung up on where it speaks no language of the door; nobody trips, and nothing is kept of it.
`send` raises `AssertionError` with what makes the case again that went wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2

from agent import rpc
from protos.ending import Ending
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import doorfuzz, nodeframes, scraping
from tests.support.nodeframes import ANSWER_S
from trust import credentials
from trust.core.identity import Role
from trust.folder import Folder

if TYPE_CHECKING:
    from trust.folder import Material

NOBODY: Final = "nobody"
"""Whoever has the roots, which the door gives to everybody, and no certificate."""
METHODS: Sequence[MethodDescriptor] = [
    *wire.DESCRIPTOR.services_by_name["Blobs"].methods,
    *health_pb2.DESCRIPTOR.services_by_name["Health"].methods,
]
FETCH: Final = "/orch.v1.Blobs/Fetch"
STREAM_S = 0.1
LONGEST_BYTES = 2_000_000
_FOREIGN = ("/orch.v1.Control/Apply", "/orch.v1.Dispatcher/Session", "/orch.v1.Blobs/../Blobs/Fetch", "/", "//", "/x/y")
_OFFSETS = (0, 1, -1, 7, 4_999, 5_000, 5_001, 2**31, 2**44, 2**44 + 1, 2**62, 2**63 - 1, -(2**63))
_NAMES = (
    *("", "sha256:", "sha256:../../etc/passwd", "../../../etc/passwd", "/etc/passwd", "sha256:" + "a" * 63 + "/"),
    *("sha512:" + "a" * 128, "sha256:" + "A" * 64, "sha256:" + "0" * 64, "sha256:" + "0" * 64 + "\n", "\0", "\x1b[2J"),
    *("\u202e", "ß" * 3_000, "\U0001f600" * 1_000, "a\r\nb", "%s%n{0}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where a node's doors are. `folders`: the certificates of those who call, by who they are; of them `node` may
    fetch, and `reader` may read. `digest`: of a blob that it has, and that `node` may have.
    """

    host: str
    blobs: int
    page: int
    folders: Mapping[str, Folder]
    node: str
    reader: str
    digest: str
    size_bytes: int

    @property
    def address(self) -> str:
        """Of the port for layers of images."""
        return f"{self.host}:{self.blobs}"


@dataclass(slots=True, kw_only=True)
class Sender:
    """Sends cases. `owns` and `channels` by who calls."""

    doors: Doors
    owns: Mapping[str, Material]
    channels: Mapping[str, grpc.aio.Channel]
    outcomes: Counter[str] = field(default_factory=Counter)

    async def one(self, dice: random.Random) -> None:
        """A case, to its end. Raises AssertionError."""
        who = dice.choice([*self.channels])
        match dice.randrange(8):
            case 0 | 1:
                await self._call(dice, who)
            case 2 | 3:
                await self._fetch(dice, dice.choice((who, self.doors.node)))
            case 4:
                await self._speak(dice, who)
            case 5:
                await self._language(dice)
            case _:
                await self._read(dice, dice.choice((who, self.doors.reader)))

    # Calls ------------------------------------------------------------------------------------------------------------

    async def _call(self, dice: random.Random, who: str) -> None:
        """Of any method there is, and some that are not, with what is no message of it, or with none, or several."""
        method = dice.choice(METHODS)
        path = f"/{method.containing_service.full_name}/{method.name}" if dice.random() < 0.9 else dice.choice(_FOREIGN)
        messages = [doorfuzz.payload(dice, method.input_type) for _ in range(dice.choice((0, 1, 1, 1, 1, 1, 2, 5)))]
        call = self.channels[who].stream_stream(path)(iter(messages), timeout=STREAM_S * dice.choice((1, 1, 10)))
        await self._ended(call, who, f"{path} {[message[:100] for message in messages]}")

    async def _fetch(self, dice: random.Random, who: str) -> None:
        """A message that is read: of a blob that is there or not, from where nobody would read on, up to 2 MB long."""
        long = dice.random() < 0.2
        text = dice.choice(("a", "../", "\x1b", "ß")) * (dice.choice((4_000, 100_000, LONGEST_BYTES)) // 3)
        digest = text if long else dice.choice((self.doors.digest, self.doors.digest, dice.choice(_NAMES)))
        request = wire.FetchBlobRequest(digest=digest, offset=dice.choice(_OFFSETS))
        packed = dice.choice((grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate))
        call = self.channels[who].unary_stream(FETCH)(request.SerializeToString(), timeout=ANSWER_S, compression=packed)
        await self._ended(call, who, f"Fetch {digest[:100]!r} ({len(digest)}) from {request.offset}")

    async def _ended(self, call: Any, who: str, what: str) -> None:
        ending = Ending(call)
        try:
            async for _ in call:
                self.outcomes["messages"] += 1
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            # gRPC gives a call up by itself whose messages cannot be sent, and says it in the way of asyncio.
            if not call.cancelled() or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            return
        code, details = await ending.status()
        self.outcomes[code.name] += 1
        if who == NOBODY:
            assert code is grpc.StatusCode.UNAVAILABLE, f"{what} of nobody: {code.name} {details[:500]!r}"
            return
        assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, (
            f"{what} of {who}: {code.name} {details[:500]!r}"
        )
        assert code is grpc.StatusCode.OK or details, f"{what} of {who}: {code.name} without a word"
        assert details.isprintable(), f"{what} of {who}: not one printable line: {details[:500]!r}"
        assert len(details) < 2_000, f"{what} of {who}: {len(details)} characters long"

    # Frames, and other languages --------------------------------------------------------------------------------------

    async def _speak(self, dice: random.Random, who: str) -> None:
        """Frames of HTTP/2 that make no sense, through a handshake that does."""
        secure = _context(self.owns[who] if who != NOBODY else None, self.doors.folders)
        secure.set_alpn_protocols(["h2"])
        ended = await nodeframes.exchange(
            self.doors.host, self.doors.blobs, nodeframes.hostile(dice), secure, wait_s=STREAM_S * 2
        )
        self.outcomes["hung up" if ended else "left hanging"] += 1

    async def _language(self, dice: random.Random) -> None:
        """Where a handshake is expected."""
        port = dice.choice((self.doors.blobs, self.doors.page))
        data = dice.choice(nodeframes.LANGUAGES) + dice.randbytes(dice.choice((0, 3, 500, 70_000)))
        ended = await nodeframes.exchange(self.doors.host, port, data, None, wait_s=STREAM_S * 2)
        self.outcomes["hung up" if ended else "left hanging"] += 1

    # The page ---------------------------------------------------------------------------------------------------------

    async def _read(self, dice: random.Random, who: str) -> None:
        """A request that no reader of metrics makes."""
        secure = _context(self.owns[who] if who != NOBODY else None, self.doors.folders)
        head = nodeframes.request(dice)
        whole = b"\r\n\r\n" in head[: nodeframes.MOST_BYTES]
        answer = await nodeframes.answer(self.doors.host, self.doors.page, head, secure, wait_s=ANSWER_S * whole)
        if answer is None:
            assert who == NOBODY or not whole, f"{head[:300]!r} of {who}: hung up on without an answer"
            self.outcomes["page hung up"] += 1
            return
        assert who != NOBODY, f"{head[:300]!r}: nobody was answered {answer.status}"
        self.outcomes[f"page {answer.status}"] += 1
        assert answer.status in {200, 400, 403, 404, 405}, f"{head[:300]!r} of {who}: {answer.status}"
        assert answer.status == 200 or answer.text.rstrip("\n").isprintable(), f"{head[:300]!r}: {answer.text[:300]!r}"
        assert all(line.isprintable() for line in answer.fields), f"{head[:300]!r} of {who}: {answer.fields}"


def _context(own: Material | None, folders: Mapping[str, Folder]) -> ssl.SSLContext:
    """What somebody dials with, whoever answers."""
    made = ssl.create_default_context(cadata=next(iter(folders.values())).load().roots.decode())
    made.check_hostname = False
    if own is not None:
        for folder in folders.values():
            if folder.load().facts.key_digest == own.facts.key_digest:
                made.load_cert_chain(folder.identity)
    return made


@contextlib.asynccontextmanager
async def sender(doors: Doors) -> AsyncIterator[Sender]:
    """With a channel of each who calls, and of nobody."""
    owns = {who: folder.load() for who, folder in doors.folders.items()}
    roots = next(iter(owns.values())).roots
    options = (("grpc.use_local_subchannel_pool", 1), *credentials.channel_options(Role.NODE))
    async with contextlib.AsyncExitStack() as stack:
        channels = {
            who: grpc.aio.secure_channel(doors.address, credentials.channel(own), options=options)
            for who, own in owns.items()
        }
        channels[NOBODY] = grpc.aio.secure_channel(doors.address, grpc.ssl_channel_credentials(roots), options=options)
        for channel in channels.values():
            await stack.enter_async_context(channel)
        yield Sender(doors=doors, owns=owns, channels=channels)


async def send(seed: int, numbers: range, to: Sender, at_once: int = 6) -> None:
    """All of them, some at a time. Raises AssertionError with what makes the one again that went wrong."""
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            try:
                async with asyncio.timeout(2 * ANSWER_S):
                    await to.one(random.Random(f"{seed}/{number}"))
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"nodedoorfuzz, seed {seed}, number {number}: {error!r}") from error

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())


async def honest(doors: Doors) -> None:
    """The node fetches what it may, and the reader reads. Raises AssertionError or what a fetch raises."""
    server = rpc.Server(doors.node, doors.folders[doors.node].load())
    try:
        content = b"".join([chunk async for chunk in server.fetch(doors.digest, 0, doors.address)])
    finally:
        await server.close()
    assert len(content) == doors.size_bytes, f"{len(content)} of {doors.size_bytes} bytes"
    async with scraping.reader(doors.host, doors.page, doors.folders[doors.reader], Role.NODE) as page:
        status, text = await page.ask()
    assert status == 200, f"{status} {text[:500]}"

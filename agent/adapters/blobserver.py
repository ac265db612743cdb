# ruff: noqa: N802 - gRPC gives the names
"""Gives blobs of images to other nodes, as many at a time and as fast as this node is willing to.

Two rules. Only what `Holdings` has is given, which are manifests, configurations and layers of images. And only to
other nodes of the cluster whose tasks need it and to its control planes, as their certificates say (`agent.fetchers`);
without certificates, to whoever reaches the port and knows a digest.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import grpc.aio
import structlog

from agent import metrics, rpc
from agent.core import sharing
from agent.fetchers import Fetchers
from agent.holdings import Holdings
from images import digest as digests
from images import errors
from images.store import ImageStore
from protos.answering import Context
from protos.connections import Connections
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc
from telemetry import health
from telemetry.health import Health

log = structlog.get_logger()

CHUNK_BYTES = 1024 * 1024
STOP_GRACE_S = 1.0
PATIENCE_S = 20.0
"""How long a transfer waits for whoever fetches. They give a node up that sends nothing for five seconds."""
MAX_CONNECTIONS = 64
"""From one address. A node has one for each blob that it fetches, three at a time."""
LOOK_EVERY_S = 5.0


class _PutOut(Exception):  # noqa: N818 - what has happened to whoever fetches
    """Whoever fetches is no member any more."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Transfer:
    """One that is going on. `said`: what gRPC says of its connection."""

    peer: str
    said: Mapping[str, Iterable[bytes]]
    task: asyncio.Task[object]
    refusal: str = ""


class BlobServer(dispatcher_pb2_grpc.BlobsServicer):
    """Serves one store. `fetchers`: who may fetch; None: everybody. `hang_up` ends the connection of a peer."""

    def __init__(
        self, store: ImageStore, holdings: Holdings, limits: sharing.Limits, fetchers: Fetchers | None = None
    ) -> None:
        self._store = store
        self._fetchers = fetchers
        self._holdings = holdings
        self._limits = limits
        self._open: set[_Transfer] = set()
        self._free_at = 0.0
        self.served_bytes = 0
        self.hang_up: Callable[[str], object] = lambda _: None
        self.patience_s = PATIENCE_S

    @property
    def transfers(self) -> int:
        """How many are going on."""
        return len(self._open)

    def look_again(self) -> None:
        """Others are members now: those who are none any more get nothing more, whatever they have begun."""
        for one in [one for one in self._open if not one.refusal]:
            one.refusal = self._refusal(one.said)
            if one.refusal:
                one.task.cancel()

    async def Fetch(  # type: ignore[override]  # it writes
        self, request: dpb.FetchBlobRequest, context: Context
    ) -> None:
        if refusal := self._refusal(context.auth_context()):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        if request.offset < 0:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"a blob has no byte {request.offset}")
        if request.digest not in self._holdings:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"this node does not have {_told(request.digest)}")
        if self._fetchers is not None and (
            refusal := await self._fetchers.refusal(context.auth_context(), request.digest)
        ):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        if self.transfers >= self._limits.transfers:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"busy: {self.transfers} transfers are going on")
        try:
            with self._going_on(context):
                await self._send(request, context)
        except errors.ImageError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except _PutOut as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))

    async def _send(self, request: dpb.FetchBlobRequest, context: Context) -> None:
        async for chunk in self._chunks(request):
            try:
                async with asyncio.timeout(self.patience_s):
                    await context.write(dpb.FetchBlobResponse(chunk=chunk))
            except TimeoutError:
                log.warning("a node that takes nothing of what it fetches is hung up on", peer=context.peer())
                self.hang_up(context.peer())
                text = f"nothing was taken for {self.patience_s:g} s"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)

    @contextlib.contextmanager
    def _going_on(self, context: Context) -> Iterator[None]:
        """Inside the block the transfer counts, and may be ended from here. Raises _PutOut when it is."""
        task = asyncio.current_task()
        assert task is not None, "a call is answered in a task"
        mine = _Transfer(peer=context.peer(), said=context.auth_context(), task=task)
        self._open.add(mine)
        try:
            yield
        except asyncio.CancelledError:
            if not mine.refusal:
                raise
            task.uncancel()
            raise _PutOut(mine.refusal) from None
        finally:
            self._open.discard(mine)

    def _refusal(self, said: Mapping[str, Iterable[bytes]]) -> str:
        return self._fetchers.stranger(said) if self._fetchers is not None else ""

    async def _chunks(self, request: dpb.FetchBlobRequest) -> AsyncIterator[bytes]:
        with self._store.open(request.digest) as file:
            # Behind its end there is nothing: who has got more than that from others finds out by the digest. And no
            # file system goes as far as an offset may.
            file.seek(min(request.offset, file.seek(0, os.SEEK_END)))
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await self._take_turn(len(chunk))
                self.served_bytes += len(chunk)
                metrics.SERVED_BYTES.inc(len(chunk))
                yield chunk

    async def _take_turn(self, size_bytes: int) -> None:
        """Wait until so many bytes more keep to the rate, which all transfers share."""
        if not self._limits.bytes_per_s:
            return
        now = asyncio.get_running_loop().time()
        begins = max(now, self._free_at)
        self._free_at = begins + size_bytes / self._limits.bytes_per_s
        await asyncio.sleep(begins - now)


def _told(digest: str) -> str:
    """What somebody asks for, as any terminal can show it."""
    return digest if digests.is_digest(digest) else f"{digest[:100]!r}"


@contextlib.asynccontextmanager
async def serving(
    server: BlobServer,
    address: str,
    port: int,
    shown: grpc.ServerCredentials | None = None,
    healthy: Health | None = None,
) -> AsyncIterator[int]:
    """Serve inside the block; yields the port, and 0 when none can be had: the node gives nothing then.

    `shown`: None is without TLS. `healthy` is served at the same port.
    """
    made = rpc.server()
    if healthy is not None:
        health.add(made, healthy)
    dispatcher_pb2_grpc.add_BlobsServicer_to_server(server, made)
    bound = rpc.listen(made, address, port, shown) if port else 0
    connections = Connections(lambda: [bound] if bound else [], MAX_CONNECTIONS, every_s=LOOK_EVERY_S)
    server.hang_up = connections.hang_up
    if port and not bound:
        log.warning("other nodes cannot fetch images from this one", address=address, port=port)
    if bound:
        await made.start()
    try:
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(connections.run())
            yield bound
            looking.cancel()
    finally:
        await made.stop(STOP_GRACE_S)

# ruff: noqa: N802 - gRPC gives the names
"""Gives blobs of images to other nodes, as many at a time and as fast as this node is willing to.

Two rules. Only what `Holdings` has is given, which are manifests, configurations and layers of images. And only to
other nodes of the cluster and to its control planes, as their certificates say; without certificates, to whoever
reaches the port and knows a digest.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc.aio
import structlog

from agent import metrics, rpc
from agent.core import sharing
from agent.holdings import Holdings
from agent.members import Members
from images import errors
from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc
from telemetry import health
from telemetry.health import Health

if TYPE_CHECKING:
    # Generic in the stubs only.
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

log = structlog.get_logger()

CHUNK_BYTES = 1024 * 1024
STOP_GRACE_S = 1.0


class BlobServer(dispatcher_pb2_grpc.BlobsServicer):
    """Serves one store. `members`: who may fetch; None: everybody."""

    def __init__(
        self, store: ImageStore, holdings: Holdings, limits: sharing.Limits, members: Members | None = None
    ) -> None:
        self._store = store
        self._members = members
        self._holdings = holdings
        self._limits = limits
        self.transfers = 0
        self._free_at = 0.0
        self.served_bytes = 0

    async def Fetch(self, request: dpb.FetchBlobRequest, context: Context) -> AsyncIterator[dpb.FetchBlobResponse]:
        if self._members is not None and (refusal := self._members.refusal(context.auth_context())):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        if request.digest not in self._holdings:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"this node does not have {request.digest:.100}")
        if self.transfers >= self._limits.transfers:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"busy: {self.transfers} transfers are going on")
        self.transfers += 1
        try:
            async for chunk in self._chunks(request):
                yield dpb.FetchBlobResponse(chunk=chunk)
        except errors.ImageError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        finally:
            self.transfers -= 1

    async def _chunks(self, request: dpb.FetchBlobRequest) -> AsyncIterator[bytes]:
        with self._store.open(request.digest) as file:
            file.seek(max(0, request.offset))
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
    if port and not bound:
        log.warning("other nodes cannot fetch images from this one", address=address, port=port)
    if bound:
        await made.start()
    try:
        yield bound
    finally:
        await made.stop(STOP_GRACE_S)

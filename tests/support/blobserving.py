# ruff: noqa: N802 - gRPC gives the names and the arguments
"""Somebody who serves blobs out of a store over real gRPC: honestly, not to the end, or lying."""

import contextlib
from collections.abc import AsyncIterator

import grpc.aio

from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc as rpc

CHUNK_BYTES = 256 * 1024
SMALL_BYTES = 64 * 1024
"""Manifests and configurations are smaller, layers are not."""


class Blobs(rpc.BlobsServicer):
    """`served`: how many bytes were sent."""

    def __init__(self, store: ImageStore, *, lies: bool = False, breaks_after_bytes: int = 0) -> None:
        self._store = store
        self._lies = lies
        self._breaks_after_bytes = breaks_after_bytes
        self.served = 0

    async def Fetch(
        self, request: dpb.FetchBlobRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[dpb.FetchBlobResponse]:
        lies = self._lies and self._store.size_bytes(request.digest) > SMALL_BYTES
        with self._store.open(request.digest) as blob:
            blob.seek(request.offset)
            while chunk := blob.read(CHUNK_BYTES):
                self.served += len(chunk)
                yield dpb.FetchBlobResponse(chunk=b"x" * len(chunk) if lies else chunk)
                if 0 < self._breaks_after_bytes <= self.served:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the machine has lost its power")


@contextlib.asynccontextmanager
async def _serving(blobs: Blobs) -> AsyncIterator[str]:
    server = grpc.aio.server()
    rpc.add_BlobsServicer_to_server(blobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def serving(store: ImageStore) -> contextlib.AbstractAsyncContextManager[str]:
    """The address of somebody honest."""
    return _serving(Blobs(store))


def lying(store: ImageStore) -> contextlib.AbstractAsyncContextManager[str]:
    """The address of somebody who sends other bytes for layers, as many as they have."""
    return _serving(Blobs(store, lies=True))


def breaking(store: ImageStore, *, after_bytes: int) -> contextlib.AbstractAsyncContextManager[str]:
    """The address of somebody who breaks off."""
    return _serving(Blobs(store, breaks_after_bytes=after_bytes))

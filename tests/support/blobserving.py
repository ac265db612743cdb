# ruff: noqa: N802, ARG002 - gRPC gives the names and the arguments
"""Somebody who serves blobs out of a store over real gRPC: honestly, slowly, or lying."""

import contextlib
from collections.abc import AsyncIterator

import grpc.aio

from images.store import ImageStore
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc as rpc

CHUNK_BYTES = 256 * 1024


class Blobs(rpc.BlobsServicer):
    """`served`: how many bytes were sent."""

    def __init__(self, store: ImageStore, instead: ImageStore | None = None) -> None:
        self._store = store
        self._instead = instead
        self.served = 0

    async def Fetch(
        self, request: dpb.FetchBlobRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[dpb.FetchBlobResponse]:
        digest = request.digest
        if self._instead is not None and digest != self._store.resolve(self._store.list()[0].digest).digest:
            wanted = self._store.size_bytes(digest)
            others = self._instead.list()[0].layers
            digest = next((one.digest for one in others if one.size_bytes == wanted), digest)
        with (self._store if self._store.has(digest) else self._instead or self._store).open(digest) as blob:
            blob.seek(request.offset)
            while chunk := blob.read(CHUNK_BYTES):
                self.served += len(chunk)
                yield dpb.FetchBlobResponse(chunk=chunk)


@contextlib.asynccontextmanager
async def serving(store: ImageStore, *, instead: ImageStore | None = None) -> AsyncIterator[str]:
    """The address. `instead`: where the bytes of layers come from, which are then other ones of the same size."""
    server = grpc.aio.server()
    rpc.add_BlobsServicer_to_server(Blobs(store, instead), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)

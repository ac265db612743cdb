"""The `Dispatcher` service: what agents call, each method a few lines over the module that does it."""

# ruff: noqa: ARG002, N802 - gRPC gives the names and the arguments

from collections.abc import AsyncIterator

from controlplane import metrics
from controlplane.api import caller
from controlplane.api.grpc_link import GrpcLink
from controlplane.core import request_errors as errors
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.images.cluster import ClusterImages
from protos.answering import Context
from protos.link import LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import dispatcher_pb2_grpc


class AgentService(dispatcher_pb2_grpc.DispatcherServicer):
    """Add it to a server with `dispatcher_pb2_grpc.add_DispatcherServicer_to_server`."""

    def __init__(self, dispatcher: Dispatcher, images: ClusterImages) -> None:
        self._dispatcher = dispatcher
        self._images = images

    async def Session(  # type: ignore[override]  # it writes
        self, request_iterator: AsyncIterator[wire.AgentMessage], context: Context
    ) -> None:
        link = GrpcLink[wire.LeaderMessage, wire.AgentMessage](request_iterator, context)
        node, joined_as = caller.node(), caller.node_name()
        await link.carry(lambda opened: self._dispatcher.serve(opened, node, joined_as))

    async def Stream(  # type: ignore[override]  # it writes
        self, request_iterator: AsyncIterator[wire.StreamFrame], context: Context
    ) -> None:
        node = caller.node()

        async def serve(link: GrpcLink[wire.StreamFrame, wire.StreamFrame]) -> None:
            try:
                await self._dispatcher.streams.serve(link, node)
            except TimeoutError:
                await link.close("the stream did not say what it was opened for")
            except LinkLost:
                return

        await GrpcLink[wire.StreamFrame, wire.StreamFrame](request_iterator, context).carry(serve)

    async def ResolveImage(self, request: wire.ResolveImageRequest, context: Context) -> wire.ResolveImageResponse:
        node = caller.node()
        if node is not None:
            self._images.rights.check_name(node, request.reference)
        digest = self._images.resolve(request.reference)
        if digest is None:
            raise errors.Unknown(
                f"the cluster has no image {request.reference}",
                hint=f"`orchctl image push {request.reference}` brings it",
            )
        return wire.ResolveImageResponse(digest=digest)

    async def FindBlob(self, request: wire.FindBlobRequest, context: Context) -> wire.FindBlobResponse:
        node = caller.node()
        if node is not None:
            if request.node_id != node:
                raise errors.Forbidden(f"the certificate is of the node {node}, and {request.node_id!r:.80} asks")
            await self._images.rights.check_blob(node, request.digest)
        size_bytes = self._images.size_bytes(request.digest)
        return await self._dispatcher.find_blob(
            request, here=lambda: self._images.has(request.digest), size_bytes=size_bytes
        )

    async def MayFetch(self, request: wire.MayFetchRequest, context: Context) -> wire.MayFetchResponse:
        if not request.node_id:
            raise errors.Invalid("the question names no node", hint="say in `node_id` who wants the blob")
        try:
            await self._images.rights.check_blob(request.node_id, request.digest)
        except errors.Forbidden as refused:
            return wire.MayFetchResponse(refusal=refused.message)
        return wire.MayFetchResponse()


class BlobService(dispatcher_pb2_grpc.BlobsServicer):
    """What nodes and other instances fetch. Add it with `dispatcher_pb2_grpc.add_BlobsServicer_to_server`."""

    def __init__(self, images: ClusterImages) -> None:
        self._images = images

    async def Fetch(self, request: wire.FetchBlobRequest, context: Context) -> AsyncIterator[wire.FetchBlobResponse]:
        node = caller.fetching_node()
        if node is not None:
            await self._images.rights.check_blob(node, request.digest)
        async for chunk in self._images.open_blob(request.digest, request.offset):
            metrics.BLOB_BYTES.inc(len(chunk))
            yield wire.FetchBlobResponse(chunk=chunk)

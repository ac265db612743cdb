"""The `Control` service: one method a call, each a few lines over the module that does it.

Nothing is decided here. What is raised below is answered in `api/errors.py`.
"""

# ruff: noqa: ARG002, N802 - gRPC gives the names and the arguments

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from controlplane.api import caller, commit_session, exec_session, placement, ports
from controlplane.api import watch as watching
from controlplane.api.diagnosis import Around, Diagnosis
from controlplane.api.log_session import LogSession
from controlplane.api.network_check import Check
from controlplane.api.reads import Reads
from controlplane.api.usage import Usage
from controlplane.api.writes import Writes
from controlplane.controllers import scheduling
from controlplane.core import request_errors as errors
from controlplane.images.cluster import ClusterImages
from controlplane.store.cache import Cache
from protos import kinds
from protos.answering import Context
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, objects_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the service is put together from. `version` and `instance` are what Version answers."""

    cache: Cache
    writes: Writes
    images: ClusterImages
    streams: ports.Streams
    network: ports.NetworkView
    election: ports.Election
    version: str
    instance: str
    now_ms: Callable[[], int]
    outlook: scheduling.Outlook = field(default_factory=scheduling.Outlook)
    around: Around = field(default_factory=Around)


class ControlService(control_pb2_grpc.ControlServicer):
    """Add it to a server with `control_pb2_grpc.add_ControlServicer_to_server`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reads = Reads(parts.cache)

    async def Apply(self, request: pb.ApplyRequest, context: Context) -> pb.ApplyResponse:
        self._reads.state()
        return await self._parts.writes.apply(request, caller.actor(context))

    async def Get(self, request: pb.GetRequest, context: Context) -> objects_pb2.Object:
        return self._reads.get(request)

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        return self._reads.list(request)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> None:  # type: ignore[override]  # it writes
        await watching.watch(self._parts.cache, request, context.write)

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:
        self._reads.state()
        deleted = await self._parts.writes.delete(request, caller.actor(context))
        if isinstance(deleted, objects_pb2.Image):
            await self._parts.images.tidy()
        return pb.DeleteResponse(object=kinds.wrap(deleted))

    async def Scale(self, request: pb.ScaleRequest, context: Context) -> pb.ScaleResponse:
        self._reads.state()
        return await self._parts.writes.scale(request, caller.actor(context))

    async def UpdateMeta(self, request: pb.UpdateMetaRequest, context: Context) -> pb.UpdateMetaResponse:
        self._reads.state()
        return await self._parts.writes.update_meta(request, caller.actor(context))

    async def Rollout(self, request: pb.RolloutRequest, context: Context) -> pb.RolloutResponse:
        self._reads.state()
        return await self._parts.writes.rollout(request, caller.actor(context))

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Context) -> pb.UpdateNodeResponse:
        self._reads.state()
        return await self._parts.writes.update_node(request, caller.actor(context))

    async def Logs(self, request: pb.LogsRequest, context: Context) -> None:  # type: ignore[override]  # it writes
        parts = self._parts
        session = LogSession(parts.cache, parts.streams, request, check_leading=lambda: self._check_leading("logs"))
        await session.run(context.write)

    async def Exec(  # type: ignore[override]  # it writes
        self, request_iterator: AsyncIterator[pb.ExecRequest], context: Context
    ) -> None:
        self._check_leading("exec")
        await exec_session.serve(self._reads.state(), self._parts.streams, request_iterator, context.write)

    async def Commit(  # type: ignore[override]  # it writes
        self, request_iterator: AsyncIterator[pb.CommitRequest], context: Context
    ) -> None:
        self._check_leading("commit")
        await commit_session.serve(self._reads.state(), self._parts.streams, request_iterator, context.write)

    async def ImportImage(
        self, request_iterator: AsyncIterator[pb.ImportImageRequest], context: Context
    ) -> pb.ImportImageResponse:
        self._check_leading("the import of images")
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "options":
            raise errors.Invalid("the first message of an import has to carry the options")
        known = self._parts.images
        async with known.spooled(first.options, _chunks(request_iterator)) as upload, known.changing():
            images = await known.take_in(first.options, upload)
            return pb.ImportImageResponse(images=await self._parts.writes.put_images(images))

    async def MissingBlobs(self, request: pb.MissingBlobsRequest, context: Context) -> pb.MissingBlobsResponse:
        self._check_leading("the push of images")
        return pb.MissingBlobsResponse(missing=await self._parts.images.missing(request.blobs))

    async def PushBlob(
        self, request_iterator: AsyncIterator[pb.PushBlobRequest], context: Context
    ) -> pb.PushBlobResponse:
        self._check_leading("the push of images")
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "start":
            raise errors.Invalid("the first message of a push has to say which blob it is")
        await self._parts.images.push_blob(first.start, _pieces(request_iterator))
        return pb.PushBlobResponse()

    async def PushImage(self, request: pb.PushImageRequest, context: Context) -> pb.PushImageResponse:
        self._check_leading("the push of images")
        async with self._parts.images.changing():
            image = await self._parts.images.push_image(request.name, request.manifest)
            (stored,) = await self._parts.writes.put_images([image])
        return pb.PushImageResponse(image=stored)

    async def CheckNetwork(  # type: ignore[override]  # it writes
        self, request: pb.CheckNetworkRequest, context: Context
    ) -> None:
        self._check_leading("a check of the network")
        parts = self._parts
        check = Check(state=self._reads.state(), streams=parts.streams, network=parts.network, send=context.write)
        await check.run(request)

    async def Usage(self, request: pb.UsageRequest, context: Context) -> None:  # type: ignore[override]  # it writes
        self._check_leading("what nodes use")
        parts = self._parts
        usage = Usage(state=self._reads.state(), streams=parts.streams, network=parts.network)
        await usage.read(request, lambda each: context.write(pb.UsageResponse(usage=each)))

    async def Diagnose(  # type: ignore[override]  # it writes
        self, request: pb.DiagnoseRequest, context: Context
    ) -> None:
        parts, leader = self._parts, self._parts.election.leader()
        if leader.name and not leader.here:
            self._check_leading("a diagnosis")
        call = Diagnosis(
            state=self._reads.state(),
            streams=parts.streams,
            network=parts.network,
            around=parts.around,
            name=parts.instance,
            version=parts.version,
            store_problem=parts.election.store_problem(),
            leads=leader.here,
            now_ms=parts.now_ms,
            send=context.write,
        )
        await call.run(request)

    async def Examine(self, request: pb.ExamineRequest, context: Context) -> pb.ExamineResponse:
        look = self._parts.around.machine
        return pb.ExamineResponse(findings=await look() if look is not None else ())

    async def Why(self, request: pb.WhyRequest, context: Context) -> pb.WhyResponse:
        return placement.answer(self._reads.state(), request, self._parts.outlook, self._parts.now_ms())

    async def Rebalance(self, request: pb.RebalanceRequest, context: Context) -> pb.RebalanceResponse:
        self._reads.state()
        return await self._parts.writes.rebalance(request, caller.actor(context))

    async def Version(self, request: pb.VersionRequest, context: Context) -> pb.VersionResponse:
        leader = self._parts.election.leader()
        return pb.VersionResponse(
            version=self._parts.version,
            instance=self._parts.instance,
            leader=leader.name,
            leader_address=leader.address,
            store_problem=self._parts.election.store_problem(),
            revision=self._parts.cache.revision,
            now=self._parts.now_ms(),
        )

    def _check_leading(self, what: str) -> None:
        leader = self._parts.election.leader()
        if not leader.here:
            raise errors.NotLeader(what, leader.address)


async def _pieces(requests: AsyncIterator[pb.PushBlobRequest]) -> AsyncIterator[bytes]:
    """The pieces. Whether they are all is told by the blob's size."""
    async for request in requests:
        if request.WhichOneof("message") != "chunk":
            raise errors.Invalid("a push says in its first message only which blob it is")
        yield request.chunk


async def _chunks(requests: AsyncIterator[pb.ImportImageRequest]) -> AsyncIterator[bytes]:
    """The pieces. A client that goes away looks like one that has sent everything, but for the last message."""
    async for request in requests:
        match request.WhichOneof("message"):
            case "chunk":
                yield request.chunk
            case "end":
                return
            case _:
                raise errors.Invalid("an import carries its options in the first message only")
    raise errors.Invalid("the archive was cut off on its way", hint="send it again")

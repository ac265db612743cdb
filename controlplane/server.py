"""The network edge of an instance: one gRPC server with its services, and the images on its disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from controlplane import rpc
from controlplane.api import changing, errors
from controlplane.api.agent_service import AgentService, BlobService
from controlplane.api.service import ControlService, Parts
from controlplane.api.writes import Writes
from controlplane.core import scheduler
from controlplane.images import room
from controlplane.images.cluster import ClusterImages
from controlplane.images.keeper import Keeper
from controlplane.images.outside import Outside
from controlplane.instance import Instance
from controlplane.store import api, members
from controlplane.trust import standing
from controlplane.trust.service import TrustService
from controlplane.trust.standing import Standing
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2, dispatcher_pb2_grpc, trust_pb2_grpc
from trust.core.identity import Role

STOP_GRACE_S = 1.0
"""How long calls in progress may take to end when the server stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What the server is made of. `listen` are `host:port` addresses; port 0 takes any free one."""

    name: str
    version: str
    listen: Sequence[str]
    images: Path
    advertise: str
    """Where the other instances reach this one."""
    now_ms: Callable[[], int]
    new_id: Callable[[], str]
    strategy: scheduler.Strategy = scheduler.Strategy.SPREAD
    registries: Path | None = None
    """The file with registries, mirrors and CAs; None: the usual one."""
    registry_credentials: Path | None = None
    """The file with users and passwords for them; None: the usual one."""
    images_limit_bytes: int = room.DEFAULT_LIMIT_BYTES
    trust: Standing | None = None
    """Who belongs to the cluster. Without it there is no TLS, and everybody may do everything."""

    def dial(self, address: str, role: Role) -> grpc.aio.Channel:
        """The way to another instance, or to a node's blobs."""
        return rpc.channel(address, role, self.trust.own if self.trust is not None else None)


def _writes(edge: Edge, instance: Instance, store: api.Store, outside: Outside) -> Writes:
    return Writes(
        store,
        instance.cache,
        now_ms=edge.now_ms,
        new_id=edge.new_id,
        strategy=edge.strategy,
        outside=outside,
        along_with_removal=standing.removed_with if edge.trust is not None else changing.nothing_else,
    )


@contextlib.asynccontextmanager
async def serving(edge: Edge, instance: Instance, store: api.Store) -> AsyncIterator[tuple[int, ...]]:
    """Serves inside the block; yields the ports. Raises `rpc.CannotListen`."""
    images = ClusterImages(edge.images, instance.cache, limit_bytes=edge.images_limit_bytes)
    outside = Outside(edge.registries, edge.registry_credentials)
    keeper = Keeper(
        images,
        instance.cache,
        instances=lambda: members.others(store, edge.name),
        nodes=instance.dispatcher.blob_addresses,
        dial=edge.dial,
    )
    server = rpc.server([errors.Refusals(edge.new_id), *([edge.trust.gate] if edge.trust is not None else [])])
    parts = Parts(
        cache=instance.cache,
        writes=_writes(edge, instance, store, outside),
        images=images,
        streams=instance.dispatcher.streams,
        network=instance.dispatcher,
        election=instance,
        version=edge.version,
        instance=edge.name,
        strategy=edge.strategy,
    )
    control_pb2_grpc.add_ControlServicer_to_server(ControlService(parts), server)
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(AgentService(instance.dispatcher, images), server)
    dispatcher_pb2_grpc.add_BlobsServicer_to_server(BlobService(images), server)
    if edge.trust is not None:
        service = TrustService(edge.trust.membership, edge.trust.registry)
        trust_pb2_grpc.add_TrustServicer_to_server(service, server)
        edge.trust.follow_roots(
            lambda digest: instance.dispatcher.sessions.announce(dispatcher_pb2.TrustNews(roots_digest=digest))
        )
    try:
        bound = rpc.listen(server, edge.listen, edge.trust.credentials if edge.trust is not None else None)
        await server.start()
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(keeper.run()),
                group.create_task(members.announce(store, edge.name, edge.advertise)),
            ]
            yield bound
            for task in work:
                task.cancel()
    finally:
        await server.stop(STOP_GRACE_S)
        await images.close()
        await outside.close()

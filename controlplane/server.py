"""The network edge of an instance: one gRPC server with both services, and the images on its disk."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane import rpc
from controlplane.api import errors
from controlplane.api.agent_service import AgentService
from controlplane.api.service import ControlService, Parts
from controlplane.api.writes import Writes
from controlplane.core import scheduler
from controlplane.images import ClusterImages
from controlplane.instance import Instance
from controlplane.store import api
from controlplane.trust import standing
from controlplane.trust.service import TrustService
from controlplane.trust.standing import Standing
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2, dispatcher_pb2_grpc, trust_pb2_grpc

STOP_GRACE_S = 1.0
"""How long calls in progress may take to end when the server stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What the server is made of. `listen` are `host:port` addresses; port 0 takes any free one."""

    name: str
    version: str
    listen: Sequence[str]
    images: Path
    now_ms: Callable[[], int]
    new_id: Callable[[], str]
    strategy: scheduler.Strategy = scheduler.Strategy.SPREAD
    trust: Standing | None = None
    """Who belongs to the cluster. Without it there is no TLS, and everybody may do everything."""


@contextlib.asynccontextmanager
async def serving(edge: Edge, instance: Instance, store: api.Store) -> AsyncIterator[tuple[int, ...]]:
    """Serves inside the block; yields the ports. Raises `rpc.CannotListen`."""
    images = ClusterImages(edge.images, instance.cache)
    server = rpc.server([errors.Refusals(edge.new_id), *([edge.trust.gate] if edge.trust is not None else [])])
    parts = Parts(
        cache=instance.cache,
        writes=Writes(
            store,
            instance.cache,
            now_ms=edge.now_ms,
            new_id=edge.new_id,
            strategy=edge.strategy,
            along_with_removal=standing.removed_with if edge.trust is not None else None,
        ),
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
    if edge.trust is not None:
        service = TrustService(edge.trust.membership, edge.trust.registry)
        trust_pb2_grpc.add_TrustServicer_to_server(service, server)
        edge.trust.follow_roots(
            lambda digest: instance.dispatcher.sessions.announce(dispatcher_pb2.TrustNews(roots_digest=digest))
        )
    try:
        bound = rpc.listen(server, edge.listen, edge.trust.credentials if edge.trust is not None else None)
        await server.start()
        yield bound
    finally:
        await server.stop(STOP_GRACE_S)
        await images.close()

"""The network edge of an instance: one gRPC server with its services, and the images on its disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc.aio

from controlplane import metrics, rpc, state_metrics
from controlplane.api import bounds, changing, errors
from controlplane.api.agent_service import AgentService, BlobService
from controlplane.api.diagnosis import Around
from controlplane.api.measuring import Measuring
from controlplane.api.own_machine import OwnMachine
from controlplane.api.service import ControlService, Parts
from controlplane.api.writes import Writes
from controlplane.controllers import scheduling
from controlplane.core import limits, scheduler
from controlplane.images import room
from controlplane.images.cluster import ClusterImages
from controlplane.images.keeper import Keeper
from controlplane.images.outside import Outside
from controlplane.instance import Instance
from controlplane.state_metrics import Condition
from controlplane.store import api, etcd_members, members
from controlplane.trust import standing
from controlplane.trust.service import TrustService
from controlplane.trust.standing import Standing
from protos.answering import Interceptor
from protos.connections import Connections
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2_grpc, trust_pb2_grpc
from protos.orch.v1 import dispatcher_pb2 as wire
from telemetry import health, page
from telemetry.metrics import Reading
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
    condition: Condition | None = None
    """How etcd's members are, for metrics; None: the store is none."""
    store_members: etcd_members.Members | None = None
    """Who they are; None: the store is none."""
    metrics: Sequence[tuple[str, int]] = ()
    """Where Prometheus reads: hosts and ports; port 0 takes any free one."""
    trust: Standing | None = None
    """Who belongs to the cluster. Without it there is no TLS, and everybody may do everything."""
    allowed: limits.Limits = limits.DEFAULTS
    times: bounds.Times = bounds.Times()  # noqa: RUF009 - a frozen value
    door_ports: Sequence[int] = ()
    """Where the door listens: its connections are bounded together with ours."""

    def dial(self, address: str, role: Role) -> grpc.aio.Channel:
        """The way to another instance, or to a node's blobs."""
        return rpc.channel(address, role, self.trust.own if self.trust is not None else None)


def _outlook(edge: Edge, instance: Instance) -> scheduling.Outlook:
    return scheduling.Outlook(strategy=edge.strategy, holders=instance.dispatcher.holders)


def _writes(edge: Edge, instance: Instance, store: api.Store, outside: Outside) -> Writes:
    return Writes(
        store,
        instance.cache,
        now_ms=edge.now_ms,
        new_id=edge.new_id,
        outlook=_outlook(edge, instance),
        outside=outside,
        along_with_removal=standing.removed_with if edge.trust is not None else changing.nothing_else,
    )


def _metrics(
    edge: Edge, instance: Instance, images: ClusterImages
) -> contextlib.AbstractAsyncContextManager[tuple[int, ...]]:
    """The page with this instance's metrics."""
    reading = Reading(metrics.REGISTRY)
    state_metrics.add(reading, instance, images, edge.condition)
    if edge.trust is None:
        assert not edge.metrics, "a page wants certificates"
        return contextlib.nullcontext(())
    state_metrics.add_certificate(reading, edge.trust)
    return page.serving(edge.metrics, reading.text, edge.trust.page_guard())


def _around(edge: Edge, store: api.Store) -> Around:
    """Whom the doctor asks beside nodes."""
    trust = edge.trust
    return Around(
        condition=edge.condition,
        instances=lambda: members.others(store, edge.name),
        dial=edge.dial,
        trust=(lambda: trust.registry.trust) if trust is not None else None,
        members=(lambda: list(trust.registry.members.values())) if trust is not None else None,
        machine=_own_machine(edge, store).look,
    )


def _own_machine(edge: Edge, store: api.Store) -> OwnMachine:
    async def others() -> Iterable[str]:
        beside = await edge.store_members.all() if edge.store_members is not None else ()
        theirs = [(one.endpoint, urlsplit(one.peer).netloc) for one in beside if one.name != edge.name]
        instances = (await members.others(store, edge.name)).values()
        return [*instances, *(address for pair in theirs for address in pair if address)]

    trust = edge.trust
    return OwnMachine(
        folder=edge.images.parent,
        now_ms=edge.now_ms,
        others=others,
        certificates=trust.store_certificates if trust is not None else tuple,
    )


def _health(instance: Instance) -> health.Health:
    """Whether calls are answered from a state that is not stale, and whether agents have their sessions here."""

    def knows_the_store() -> bool:
        return not instance.store_problem()

    return health.Health(
        {
            health.SERVER: lambda: True,
            "orch.v1.Control": knows_the_store,
            "orch.v1.Dispatcher": lambda: instance.leader().here,
        }
    )


def _announce_news(trust: Standing, instance: Instance) -> None:
    """Has agents told which roots are believed, and where the instances are."""
    announce = instance.dispatcher.sessions.announce
    trust.follow_roots(lambda digest: announce(wire.LeaderMessage(trust_news=wire.TrustNews(roots_digest=digest))))
    trust.follow_instances(
        lambda addresses: announce(wire.LeaderMessage(control_planes=wire.ControlPlanes(addresses=addresses)))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves. `ports` in the order of the addresses."""

    ports: tuple[int, ...]
    doorman: limits.Doorman
    connections: Connections


def _interceptors(edge: Edge, doorman: limits.Doorman, connections: Connections) -> Sequence[Interceptor]:
    """From the outside in."""
    bounded = bounds.Bounds(doorman, edge.now_ms, connections.hang_up, edge.times)
    return [Measuring(), errors.Refusals(edge.new_id), bounded, *([edge.trust.gate] if edge.trust is not None else [])]


def _add_services(
    edge: Edge,
    instance: Instance,
    store: api.Store,
    images: ClusterImages,
    outside: Outside,
    server: grpc.aio.Server,
) -> None:
    parts = Parts(
        cache=instance.cache,
        writes=_writes(edge, instance, store, outside),
        images=images,
        streams=instance.dispatcher.streams,
        network=instance.dispatcher,
        election=instance,
        version=edge.version,
        instance=edge.name,
        now_ms=edge.now_ms,
        outlook=_outlook(edge, instance),
        around=_around(edge, store),
    )
    control_pb2_grpc.add_ControlServicer_to_server(ControlService(parts), server)
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(AgentService(instance.dispatcher, images), server)
    dispatcher_pb2_grpc.add_BlobsServicer_to_server(BlobService(images), server)
    health.add(server, _health(instance))
    if edge.trust is not None:
        service = TrustService(
            edge.trust.membership, edge.trust.registry, edge.trust.book, may_read=edge.trust.reader_refusal
        )
        trust_pb2_grpc.add_TrustServicer_to_server(service, server)
        _announce_news(edge.trust, instance)


@contextlib.asynccontextmanager
async def serving(edge: Edge, instance: Instance, store: api.Store) -> AsyncIterator[Serving]:
    """Serves inside the block. Raises `rpc.CannotListen`."""
    images = ClusterImages(edge.images, instance.cache, limit_bytes=edge.images_limit_bytes)
    outside = Outside(edge.registries, edge.registry_credentials)
    keeper = Keeper(
        images,
        instance.cache,
        instances=lambda: members.others(store, edge.name),
        nodes=instance.dispatcher.blob_addresses,
        dial=edge.dial,
    )
    ports: list[int] = [*edge.door_ports]
    connections = Connections(lambda: ports, edge.allowed.connections)
    doorman = limits.Doorman(edge.allowed)
    server = rpc.server(_interceptors(edge, doorman, connections))
    _add_services(edge, instance, store, images, outside, server)
    told = edge.trust.told_members(instance.dispatcher.believe) if edge.trust is not None else contextlib.nullcontext()
    try:
        bound = rpc.listen(server, edge.listen, edge.trust.credentials if edge.trust is not None else None)
        ports.extend(bound)
        await server.start()
        async with _metrics(edge, instance, images), asyncio.TaskGroup() as group:
            with told:
                work = [
                    group.create_task(connections.run()),
                    group.create_task(keeper.run()),
                    group.create_task(state_metrics.count_events(instance.cache)),
                    group.create_task(members.announce(store, edge.name, edge.advertise)),
                ]
                yield Serving(ports=bound, doorman=doorman, connections=connections)
                for task in work:
                    task.cancel()
    finally:
        await server.stop(STOP_GRACE_S)
        await images.close()
        await outside.close()

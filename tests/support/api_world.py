"""The API over the memory store, on a real gRPC server: everything but the leader, whose part a test plays.

async with api_world.opened(tmp_path) as world:
    await world.stub.Apply(…)
"""

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from controlplane import rpc
from controlplane.api import errors, ports
from controlplane.api.agent_service import AgentService, BlobService
from controlplane.api.service import ControlService, Parts
from controlplane.api.writes import Writes
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.images import room
from controlplane.images.cluster import ClusterImages
from controlplane.store import api, memory, typed
from controlplane.store.cache import Cache
from protos import headers, kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2_grpc, objects_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support.streams import FakeStreams

NOW_MS = 1_700_000_000_000
HELLOS = ("hello:1", "hello:2", "hello:3", "hello:4", "hello:latest")
"""The images that services of tests are made of."""


class FakeElection:
    """Says what the test has put here."""

    def __init__(self) -> None:
        self.now = ports.Leader(name="cp1", address="127.0.0.1:7400", here=True)
        self.problem = ""

    def leader(self) -> ports.Leader:
        return self.now

    def store_problem(self) -> str:
        return self.problem


class FakeNetwork:
    """A cluster with the service `default/web`, of one ready task, and another one without any."""

    def settings(self) -> wire.NodeNetwork:
        return wire.NodeNetwork(cluster_range="10.112.0.0/16", service_range="10.201.0.0/16")

    def services(self) -> Sequence[wire.NetworkService]:
        ready = wire.Endpoint(task_id="web-1", address="10.112.1.2", ready=True)
        stopping = wire.Endpoint(task_id="web-2", address="10.112.1.3")
        return [
            wire.NetworkService(name="web", namespace="default", address="10.201.0.1", endpoints=[ready, stopping]),
            wire.NetworkService(name="idle", namespace="default", address="10.201.0.2", endpoints=[stopping]),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a test has in its hands."""

    store: api.Store
    cache: Cache
    streams: FakeStreams
    election: FakeElection
    images: ClusterImages
    stub: "control_pb2_grpc.ControlAsyncStub"
    address: str

    async def put(self, *values: kinds.StoredObject) -> None:
        """Stores objects as the leader would, and waits until the cache shows them."""
        revision = await self.store.commit([typed.overwrite(value) for value in values])
        await self.cache.wait_for(revision, 5)

    async def remove(self, value: kinds.StoredObject) -> None:
        """Removes an object as the leader would."""
        revision = await self.store.commit([api.Delete(key=kinds.key(value))])
        await self.cache.wait_for(revision, 5)


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    store: api.Store | None = None,
    *,
    known: Sequence[str] = HELLOS,
    images_limit_bytes: int = room.DEFAULT_LIMIT_BYTES,
) -> AsyncIterator[World]:
    """Everything is over at the end of the block. `known`: names of images that the cluster has."""
    store = store or memory.MemoryStore()
    if known:
        await store.commit([typed.put(image(name)) for name in known])
    cache = Cache(store)
    images = ClusterImages(folder / "images", cache, limit_bytes=images_limit_bytes)
    try:
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(cache.run())
            await cache.wait_for(1, 5)
            streams, election = FakeStreams(group), FakeElection()
            async with _served(store, cache, images, streams, election) as (stub, address):
                yield World(
                    store=store,
                    cache=cache,
                    streams=streams,
                    election=election,
                    images=images,
                    stub=stub,
                    address=address,
                )
            follower.cancel()
            streams.stop()
    finally:
        await images.close()
        await store.close()


@contextlib.asynccontextmanager
async def _served(
    store: api.Store, cache: Cache, images: ClusterImages, streams: FakeStreams, election: FakeElection
) -> AsyncIterator[tuple["control_pb2_grpc.ControlAsyncStub", str]]:
    numbers = itertools.count(1)
    parts = Parts(
        now_ms=lambda: NOW_MS,
        cache=cache,
        writes=Writes(store, cache, now_ms=lambda: NOW_MS, new_id=lambda: f"id-{next(numbers)}"),
        images=images,
        streams=streams,
        network=FakeNetwork(),
        election=election,
        version="1.2.3",
        instance="cp1",
    )
    server = rpc.server([errors.Refusals(lambda: "ref-1")])
    control_pb2_grpc.add_ControlServicer_to_server(ControlService(parts), server)
    dispatcher = Dispatcher(cache.snapshot, lambda: ("", ""), lambda: f"stream-{next(numbers)}")
    dispatcher_pb2_grpc.add_DispatcherServicer_to_server(AgentService(dispatcher, images), server)
    dispatcher_pb2_grpc.add_BlobsServicer_to_server(BlobService(images), server)
    (port,) = rpc.listen(server, ["127.0.0.1:0"])
    await server.start()
    address = f"127.0.0.1:{port}"
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield control_pb2_grpc.ControlStub(channel), address
    finally:
        await server.stop(0)


def refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, pb.Error]:
    """What a call was refused with."""
    metadata: dict[str, Any] = dict(error.trailing_metadata() or ())
    assert headers.ERROR in metadata, f"no error in the trailing metadata: {error}"
    return error.code(), pb.Error.FromString(metadata[headers.ERROR])


def service(name: str = "web", *, image: str = "hello:1", replicas: int | None = None) -> objects_pb2.Service:
    """A service as a manifest would have it."""
    template = objects_pb2.TaskTemplate(container=objects_pb2.Container(image=image))
    return objects_pb2.Service(
        meta=objects_pb2.Meta(name=name), spec=objects_pb2.ServiceSpec(template=template, replicas=replicas)
    )


def image(name: str = "hello:1") -> objects_pb2.Image:
    """An image as a push would have stored it; nobody has its blobs."""
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    status = objects_pb2.ImageStatus(digest=digest, size=1, platform="linux/amd64", layers=1)
    return objects_pb2.Image(meta=objects_pb2.Meta(id=f"id-of-{name}", name=name, generation=1), status=status)


def revision(service: str, *, images: Mapping[str, str]) -> objects_pb2.Revision:
    """A revision as the leader would have it."""
    meta = objects_pb2.Meta(id=f"{service}-1", name=f"{service}-1", namespace="default")
    return objects_pb2.Revision(meta=meta, service=service, number=1, images=images)


def task(name: str, *, service: str = "web", node: str = "", started: bool = True) -> objects_pb2.Task:
    """A task as the leader would have it."""
    made = objects_pb2.Task(meta=objects_pb2.Meta(id=name, name=name, namespace="default", created_at=NOW_MS))
    made.service, made.node_id, made.desired_state = service, node, objects_pb2.DESIRED_STATE_RUNNING
    made.status.state = objects_pb2.TASK_STATE_RUNNING if started else objects_pb2.TASK_STATE_PENDING
    made.status.ready, made.status.started_at = started, NOW_MS if started else 0
    return made


def node(name: str, *, state: objects_pb2.NodeState.ValueType = objects_pb2.NODE_STATE_READY) -> objects_pb2.Node:
    """A node as the leader would have it; its id is `id-of-<name>`."""
    made = objects_pb2.Node(meta=objects_pb2.Meta(id=f"id-of-{name}", name=name, generation=1))
    made.status.state = state
    return made


def apply_request(*values: kinds.StoredObject, dry_run: bool = False) -> pb.ApplyRequest:
    return pb.ApplyRequest(objects=[kinds.wrap(value) for value in values], dry_run=dry_run)

"""An instance with TLS over a store in memory, founded in a folder of the test; and people and nodes that join it."""

import asyncio
import contextlib
import functools
import io
import itertools
import random
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from controlplane import main, server
from controlplane.api.bounds import Times
from controlplane.core.limits import DEFAULTS, Doorman, Limits
from controlplane.core.trust import etcd_flags
from controlplane.instance import Identity, Instance
from controlplane.leader import World
from controlplane.store import api, memory
from controlplane.trust import founding
from controlplane.trust.forgetting import Forgetting
from controlplane.trust.standing import Standing, standing
from protos.connections import Connections
from protos.link import Link, LinkLost
from protos.orch.v1 import control_pb2, control_pb2_grpc, dispatcher_pb2_grpc, objects_pb2, trust_pb2_grpc
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import trust_pb2 as tpb
from tests.support import aio, etcd
from tests.support.instances import A_MOMENT_S, IPV4
from trust import credentials, joining
from trust.core.identity import Role
from trust.folder import Folder, Material

HOUR_MS = 3_600_000
BEAT_S = 2.0


@dataclass(slots=True, kw_only=True)
class Cluster:
    """What a test has in its hands. `clock`: what the instance takes for the time, beside the real one."""

    folder: Path
    tokens: dict[str, str]
    address: str = ""
    door: str = ""
    ahead_ms: int = 0
    metrics_port: int = 0
    instance: Instance = field(init=False)
    standing: Standing = field(init=False)
    serving: server.Serving = field(init=False)

    def now_ms(self) -> int:
        return main.now_ms() + self.ahead_ms

    @property
    def doorman(self) -> Doorman:
        return self.serving.doorman

    @property
    def connections(self) -> Connections:
        return self.serving.connections

    @property
    def admin(self) -> Material:
        return Folder(self.folder / "admin").load(Role.ADMIN)

    async def join(self, name: str, token: str = "", *, clock: Callable[[], int] = main.now_ms) -> Material:
        """A node's, an instance's or a person's certificate, by the door. Raises NotJoined."""
        wish = joining.Wish(name=name, node_name=f"{name}-name")
        said = token or self.tokens["node_token"]
        folder = Folder(self.folder / name)
        joined = await asyncio.to_thread(joining.join, self.door, said, wish, folder, clock)
        folder.end_join()
        return joined.own

    async def person(self, name: str, role: str, *namespaces: str) -> Material:
        """Somebody with a role."""
        request = tpb.CreateTokenRequest(role=role, person=name, namespaces=namespaces)
        async with self.trust(self.admin) as stub:
            made = await stub.CreateToken(request)
        return await self.join(name, made.token)

    @contextlib.asynccontextmanager
    async def channel(self, own: Material) -> AsyncIterator[grpc.aio.Channel]:
        options = (("grpc.use_local_subchannel_pool", 1), *credentials.CHANNEL_OPTIONS)
        async with grpc.aio.secure_channel(self.address, credentials.channel(own), options=options) as channel:
            yield channel

    @contextlib.asynccontextmanager
    async def control(self, own: Material) -> AsyncIterator["control_pb2_grpc.ControlAsyncStub"]:
        async with self.channel(own) as channel:
            yield control_pb2_grpc.ControlStub(channel)

    @contextlib.asynccontextmanager
    async def trust(self, own: Material) -> AsyncIterator["trust_pb2_grpc.TrustAsyncStub"]:
        async with self.channel(own) as channel:
            yield trust_pb2_grpc.TrustStub(channel)

    @contextlib.asynccontextmanager
    async def dispatcher(self, own: Material) -> AsyncIterator["dispatcher_pb2_grpc.DispatcherAsyncStub"]:
        async with self.channel(own) as channel:
            yield dispatcher_pb2_grpc.DispatcherStub(channel)

    @contextlib.asynccontextmanager
    async def blobs(self, own: Material) -> AsyncIterator["dispatcher_pb2_grpc.BlobsAsyncStub"]:
        async with self.channel(own) as channel:
            yield dispatcher_pb2_grpc.BlobsStub(channel)


def found(folder: Path, *, instance: str = "cp1", now_ms: int | None = None) -> dict[str, str]:
    """A cluster in a folder: `cp` and `admin` below it; the tokens. `now_ms`: when, if it is not now."""
    member = etcd_flags.at_host(instance, etcd_flags.LOOPBACK)
    own = founding.Instance(name=instance, folder=Folder(folder / "cp"), member=member)
    plan = founding.Plan(instances=[own], admin="root", admins=Folder(folder / "admin"))
    return founding.found(plan, main.now_ms() if now_ms is None else now_ms)


@contextlib.asynccontextmanager
async def cluster(
    folder: Path,
    store: api.Store | None = None,
    *,
    also: str = "",
    limits: Limits = DEFAULTS,
    times: Times = Times(),  # noqa: B008 - a frozen value
    founded_ms: int | None = None,
    ahead_ms: int = 0,
) -> AsyncIterator[Cluster]:
    """A cluster of one instance, which leads. `also`: another address that it answers at, such as `unix:/…`.

    `founded_ms`: when, if it is not now; `ahead_ms`: of the real time, what the instance takes for it at first.
    """
    store = store or memory.MemoryStore()
    made = Cluster(folder=folder, tokens=found(folder, now_ms=founded_ms), ahead_ms=ahead_ms)
    bounded = functools.partial(server.Edge, allowed=limits, times=times)
    try:
        async with _standing(made, store, also, bounded), asyncio.TaskGroup() as group:
            task = group.create_task(made.instance.run())
            await aio.until(lambda: made.instance.leader().here, what="the instance leads", timeout_s=A_MOMENT_S)
            await aio.until(lambda: bool(made.standing.registry.members), what="it is founded", timeout_s=A_MOMENT_S)
            yield made
            task.cancel()
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def _standing(
    made: Cluster, store: api.Store, also: str, bounded: Callable[..., server.Edge]
) -> AsyncIterator[None]:
    """The instance's edge and its door."""
    made.address, ids = f"127.0.0.1:{etcd.free_port()}", itertools.count(1)
    made.metrics_port = etcd.free_port()
    world = World(
        now_ms=made.now_ms,
        random=random.Random(1),
        suffixes=(f"aaaa{number}" for number in itertools.count(1)),
        ranges=IPV4,
    )
    new_id = lambda: f"id-{next(ids)}"  # noqa: E731 - three who need the same
    made.instance = Instance(store, Identity(name="cp1", address=made.address), world, new_id=new_id)
    trusted = standing(
        Folder(made.folder / "cp"),
        store,
        audit=made.folder / "audit.log",
        now_ms=made.now_ms,
        chance=random.Random(1),
    )
    async with trusted as made.standing, made.standing.door.serving(["127.0.0.1:0"]) as (port,):
        made.door = f"127.0.0.1:{port}"
        made.instance.chores.append(Forgetting(made.standing.registry, made.now_ms).run)
        edge = bounded(
            name="cp1",
            version="1.2.3",
            listen=[made.address, *([also] if also else [])],
            images=made.folder / "images",
            advertise=made.address,
            now_ms=made.now_ms,
            new_id=new_id,
            trust=made.standing,
            door_ports=[port],
            metrics=[("127.0.0.1", made.metrics_port)],
        )
        async with server.serving(edge, made.instance, store) as made.serving:
            yield


def archive_of_one_file(name: str) -> Sequence[control_pb2.ImportImageRequest]:
    """The messages that import an image."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"), io.BytesIO(b""))
    return [
        control_pb2.ImportImageRequest(options=control_pb2.ImportImageOptions(name=name, cmd=["/hello"])),
        control_pb2.ImportImageRequest(chunk=archive.getvalue()),
        control_pb2.ImportImageRequest(end=True),
    ]


# Nodes ----------------------------------------------------------------------------------------------------------------


def register(own: Material, node_id: str = "", address: str = "10.0.0.1", called: str = "") -> wire.AgentMessage:
    """`called`: the name that the node joined with, if it is not the one that `Cluster.join` gives."""
    name = own.identity.name
    capacity = objects_pb2.NodeCapacity(cpu=4000, memory=2**32, tasks=100)
    description = objects_pb2.NodeDescription(hostname=name, address=address, capacity=capacity)
    made = wire.Register(node_id=node_id or name, node_name=called or f"{name}-name", description=description)
    return wire.AgentMessage(register=made)


@contextlib.asynccontextmanager
async def session(
    made: Cluster, own: Material, address: str = "10.0.0.1"
) -> AsyncIterator["grpc.aio.StreamStreamCall[object, object]"]:
    """A node's session that has begun, and that the instance counts."""
    async with made.dispatcher(own) as stub:
        call = stub.Session()  # type: ignore[call-arg]  # the stubs want an iterator
        called = made.standing.registry.members[own.identity.member].node_name
        await call.write(register(own, address=address, called=called))
        first = await call.read()
        assert first.WhichOneof("message") == "registered", first  # type: ignore[union-attr]
        known = lambda: made.instance.dispatcher.sessions.get(own.identity.name) is not None  # noqa: E731
        await aio.until(known, what="the session is counted", timeout_s=A_MOMENT_S)  # which comes after the answer
        yield call  # type: ignore[misc]
        call.cancel()


@contextlib.asynccontextmanager
async def beating(link: Link[wire.AgentMessage, wire.LeaderMessage]) -> AsyncIterator[None]:
    """In the block the leader hears from a session, as from one of an agent: what is silent for too long is ended."""

    async def beat() -> None:
        with contextlib.suppress(LinkLost):  # whoever reads is told
            while True:
                await asyncio.sleep(BEAT_S)
                await link.send(wire.AgentMessage(heartbeat=wire.Heartbeat()))

    beats = asyncio.create_task(beat())
    try:
        yield
    finally:
        beats.cancel()
        await asyncio.wait({beats})

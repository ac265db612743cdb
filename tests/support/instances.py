"""Instances of the control plane over one store, and an agent that says yes to everything."""

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from agent import rpc
from controlplane import server
from controlplane.controllers.nodes import Ranges
from controlplane.instance import Identity, Instance
from controlplane.leader import World
from controlplane.main import now_ms
from controlplane.store import api, typed
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2_grpc, objects_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, api_world, etcd
from trust.folder import Material

A_MOMENT_S = 10.0
IPV4 = Ranges(cluster="10.112.0.0/16", subnet_bits=24, services="10.201.0.0/16")
BOTH = dataclasses.replace(IPV4, cluster6="fd00:112::/48", services6="fd00:201::/112")

T = TypeVar("T")


class Running:
    """An instance with its server, in a task of the test."""

    def __init__(self, name: str, store: api.Store, folder: Path, ranges: Ranges) -> None:
        self.name = name
        self.port = etcd.free_port()
        ids = itertools.count(1)
        suffixes = (f"aaaa{name}{number}" for number in itertools.count(1))
        self.address = f"127.0.0.1:{self.port}"
        world = World(
            now_ms=now_ms,
            random=random.Random(1),
            suffixes=suffixes,
            ranges=ranges,
        )
        self._new_id = lambda: f"{name}-id-{next(ids)}"
        self.instance = Instance(store, Identity(name=name, address=self.address), world, new_id=self._new_id)
        self._store = store
        self._folder = folder
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        edge = server.Edge(
            name=self.name,
            version="1.2.3",
            listen=[self.address],
            images=self._folder / self.name,
            advertise=self.address,
            now_ms=now_ms,
            new_id=self._new_id,
        )
        async with server.serving(edge, self.instance, self._store):
            await self.instance.run()

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator["control_pb2_grpc.ControlAsyncStub"]:
        async with grpc.aio.insecure_channel(self.address) as channel:
            yield control_pb2_grpc.ControlStub(channel)

    def leads(self) -> bool:
        return self.instance.leader().here


@contextlib.asynccontextmanager
async def instances(store: api.Store, folder: Path, *names: str, second: Ranges = IPV4) -> AsyncIterator[list[Running]]:
    """Started one after the other, so that the first leads. `second`: what the others are started with."""
    await store.commit([typed.put(api_world.image(name)) for name in api_world.HELLOS])
    made = [Running(name, store, folder, second if number else IPV4) for number, name in enumerate(names)]
    try:
        async with asyncio.TaskGroup() as group:
            for each in made:
                each.task = group.create_task(each.run())
                await aio.until(made[0].leads, what="the first instance leads", timeout_s=A_MOMENT_S)
            yield made
            for each in made:
                assert each.task is not None
                each.task.cancel()
    finally:
        await store.close()


class Agent:
    """A session that runs whatever it is told to, on paper."""

    def __init__(
        self,
        name: str,
        speak: Callable[[grpc.aio.Channel], grpc.aio.Channel] = lambda channel: channel,
        own: Material | None = None,
    ) -> None:
        """`own`: its certificate, which says its id; None: without TLS."""
        self.name = name
        self.running: set[str] = set()
        self._speak = speak
        self._own = own

    async def run(self, address: str) -> None:
        """Until the call ends."""
        async with rpc.channel(address, self._own) as channel:
            call = dispatcher_pb2_grpc.DispatcherStub(self._speak(channel)).Session()
            await call.write(wire.AgentMessage(register=self._register()))
            sequence = 0
            async for message in call:
                match message.WhichOneof("message"):
                    case "assignment":
                        sequence += 1
                        reports = [self._report(task) for task in message.assignment.tasks]
                        report = wire.StatusReport(sequence=sequence, tasks=reports)
                        await call.write(wire.AgentMessage(statuses=report))
                    case "open_stream":
                        await self._answer(channel, message.open_stream)

    async def _answer(self, channel: grpc.aio.Channel, asked: wire.OpenStream) -> None:
        """A log of one line, or a command that echoes its first input."""
        stream = dispatcher_pb2_grpc.DispatcherStub(channel).Stream()
        await stream.write(wire.StreamFrame(open=wire.StreamOpened(stream_id=asked.stream_id)))
        if asked.WhichOneof("request") == "logs":
            lines = [pb.LogLine(time_ns=1, text=f"from {self.name}".encode())]
            await stream.write(wire.StreamFrame(logs=pb.LogsResponse(lines=lines)))
            await stream.write(wire.StreamFrame(end=True))
        else:
            text = (await stream.read()).input.stdin
            await stream.write(wire.StreamFrame(output=pb.ExecResponse(stdout=text)))
            await stream.write(wire.StreamFrame(output=pb.ExecResponse(exit_code=3)))
        await stream.done_writing()
        with contextlib.suppress(grpc.aio.AioRpcError):  # which end ended it first is a matter of luck
            while await stream.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                continue

    def _register(self) -> wire.Register:
        capacity = objects_pb2.NodeCapacity(cpu=4000, memory=2**32, tasks=100)
        description = objects_pb2.NodeDescription(hostname=self.name, address="10.0.0.1", capacity=capacity)
        node_id = self._own.identity.name if self._own is not None else f"id-of-{self.name}"
        return wire.Register(node_id=node_id, node_name=self.name, description=description)

    def _report(self, task: objects_pb2.Task) -> wire.TaskReport:
        self.running.add(task.meta.id)
        status = objects_pb2.TaskStatus(state=objects_pb2.TASK_STATE_RUNNING, ready=True, at=now_ms())
        return wire.TaskReport(task_id=task.meta.id, namespace=task.meta.namespace, status=status)


async def settled(stub: "control_pb2_grpc.ControlAsyncStub", name: str) -> objects_pb2.Service:
    """The service, once all that was asked for is there."""
    call = stub.Watch(pb.WatchRequest(selections=[pb.ListRequest(kind="service")]))
    try:
        async with asyncio.timeout(A_MOMENT_S):
            async for event in call:
                found = event.changed.service
                if found.meta.name == name and found.status.settled:
                    return found
    finally:
        call.cancel()
    raise AssertionError(f"the watch ended before {name} was settled")


async def eventually(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """The first answer that `holds` likes."""
    async with asyncio.timeout(2 * A_MOMENT_S):
        while not holds(answer := await ask()):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.05)
    return answer

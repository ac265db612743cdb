# ruff: noqa: ARG002 - the signatures are those of the generated service
"""A leader for one agent at a time over real gRPC: it assigns what a test says and remembers what it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import grpc.aio

from images.errors import NotFound
from images.store import ImageStore
from protos import states
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import dispatcher_pb2_grpc as rpc
from protos.orch.v1 import objects_pb2 as pb
from tests.support.aio import within
from tests.support.blobserving import Blobs


class FakeLeader(rpc.DispatcherServicer):
    """Serves on a Unix socket, which reaches into every network namespace."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._server: grpc.aio.Server | None = None
        self.address = ""
        self.registered: list[dpb.Register] = []
        self.statuses: dict[str, pb.TaskStatus] = {}
        self.history: dict[str, list[pb.TaskStatus]] = {}
        self.heartbeats = 0
        self._tasks: dict[str, pb.Task] = {}
        self._revisions: dict[str, pb.Revision] = {}
        self._withdrawn: set[str] = set()
        self.withdraws = True
        """Whether tasks that are told to stop leave the endpoints at once, as in a cluster where nobody uses them."""
        self.network = dpb.NodeNetwork(
            cluster_range="10.112.0.0/16", subnet="10.112.1.0/24", service_range="10.113.0.0/16"
        )
        self.services: dict[str, dpb.NetworkService] = {}
        self.applied = -1
        self.givers: list[str] = []
        """Addresses of nodes that agents are sent to for layers."""
        self.held: set[str] = set()
        """The blobs that the agent gives to others."""
        self._sequence = 0
        self._out: asyncio.Queue[dpb.LeaderMessage] | None = None
        self._changed = asyncio.Condition()
        self._streams: dict[str, asyncio.Future[tuple[AsyncIterator[dpb.StreamFrame], asyncio.Queue]]] = {}

    async def start(self, socket: Path) -> str:
        """Serve; returns the address for agents."""
        self._server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 500)])
        rpc.add_DispatcherServicer_to_server(self, self._server)
        self.blobs = Blobs(self._store)
        rpc.add_BlobsServicer_to_server(self.blobs, self._server)
        self._server.add_insecure_port(f"unix:{socket}")
        await self._server.start()
        self.address = f"unix:{socket}"
        return self.address

    async def stop(self) -> None:
        """Go away at once."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    # What a test does

    async def assign(self, *tasks: pb.Task, template: pb.TaskTemplate | None = None) -> None:
        """New tasks, or changed ones, with the template of revision `r1`."""
        revisions = []
        if template is not None:
            revision = pb.Revision(meta=pb.Meta(id=tasks[0].revision_id), template=template)
            self._revisions[revision.meta.id] = revision
            revisions.append(revision)
        self._tasks.update({task.meta.id: task for task in tasks})
        await self._send_change(dpb.Assignment(tasks=tasks, revisions=revisions))
        leaving = [task.meta.id for task in tasks if task.desired_state >= pb.DESIRED_STATE_SHUTDOWN]
        if leaving and self.withdraws:
            await self.withdraw(*leaving)

    async def withdraw(self, *task_ids: str) -> None:
        """Say that no node sends new connections to the tasks any more."""
        self._withdrawn.update(task_ids)
        await self._send_change(dpb.Assignment(withdrawn_tasks=task_ids))

    async def remove(self, *task_ids: str) -> None:
        """Forget tasks."""
        for task_id in task_ids:
            del self._tasks[task_id]
            self._withdrawn.discard(task_id)
        await self._send_change(dpb.Assignment(removed_tasks=task_ids))

    async def announce_network(self) -> None:
        """Tell the agent of `network` as it is now."""
        await self._send_change(dpb.Assignment(network=self.network))

    async def serve(self, *services: dpb.NetworkService, gone: Sequence[str] = ()) -> None:
        """Tell the agent of services, and wait until it says that new connections go where they say."""
        self.services.update({service.id: service for service in services})
        for service_id in gone:
            del self.services[service_id]
        await self._send_change(dpb.Assignment(services=services, removed_services=gone))
        await self.network_applied()

    async def network_applied(self) -> None:
        """Wait until the agent's network is as it was told."""
        wanted = self._sequence

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: self.applied >= wanted)

        await within(10, wait(), what=f"assignment {wanted} is applied")

    async def announce_services(self, *services: dpb.NetworkService) -> None:
        """Services as they are now: new ones, or those that changed."""
        self.services.update({service.id: service for service in services})
        await self._send_change(dpb.Assignment(services=services))

    async def until(
        self, task_id: str, holds: Callable[[pb.TaskStatus], bool], *, what: str, timeout_s: float = 15
    ) -> pb.TaskStatus:
        """The first status of the task that fits."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(lambda: task_id in self.statuses and holds(self.statuses[task_id]))

        try:
            await within(timeout_s, wait(), what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last status of {task_id} is: {self.statuses.get(task_id)}") from None
        return self.statuses[task_id]

    async def running(self, task_id: str, *, timeout_s: float = 15) -> pb.TaskStatus:
        """The status once the task runs."""
        return await self.until(task_id, lambda status: status.ready, what=f"{task_id} runs", timeout_s=timeout_s)

    async def open_stream(
        self, request: dpb.OpenStream
    ) -> "tuple[AsyncIterator[dpb.StreamFrame], asyncio.Queue[dpb.StreamFrame | None]]":
        """Ask the agent for a stream: what comes from it, and a queue for what goes to it (None: hang up)."""
        self._streams[request.stream_id] = asyncio.get_running_loop().create_future()
        assert self._out is not None, "no agent holds a session"
        await self._out.put(dpb.LeaderMessage(open_stream=request))
        stream: tuple[AsyncIterator[dpb.StreamFrame], asyncio.Queue[dpb.StreamFrame | None]] = await within(
            10, self._streams[request.stream_id], what="the agent opens the stream"
        )
        return stream

    # What agents call

    async def Session(  # type: ignore[override]  # noqa: N802 - the schema's name; a coroutine may serve a stream, too
        self, _: object, context: grpc.aio.ServicerContext
    ) -> None:
        self._out = out = asyncio.Queue(1000)
        self.applied = -1
        self.registered.append((await context.read()).register)
        await context.write(dpb.LeaderMessage(registered=dpb.Registered(session_id="s", heartbeat_interval=500)))
        await context.write(dpb.LeaderMessage(assignment=self._complete()))
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._tell(context, out))
            while (message := await context.read()) is not grpc.aio.EOF:
                await self._hear(message, out)
            writer.cancel()

    async def Stream(  # noqa: N802
        self, request_iterator: AsyncIterator[dpb.StreamFrame], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[dpb.StreamFrame]:
        frames = aiter(request_iterator)
        opened = (await anext(frames)).open
        inbound: asyncio.Queue[dpb.StreamFrame | None] = asyncio.Queue(100)
        self._streams[opened.stream_id].set_result((frames, inbound))
        while (frame := await inbound.get()) is not None:
            yield frame

    async def ResolveImage(  # noqa: N802
        self, request: dpb.ResolveImageRequest, context: grpc.aio.ServicerContext
    ) -> dpb.ResolveImageResponse:
        try:
            return dpb.ResolveImageResponse(digest=self._store.resolve(request.reference).digest)
        except NotFound as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            raise

    async def FindBlob(  # noqa: N802
        self, request: dpb.FindBlobRequest, context: grpc.aio.ServicerContext
    ) -> dpb.FindBlobResponse:
        addresses = [address for address in self.givers if address not in request.failed]
        return dpb.FindBlobResponse(addresses=addresses, here=not addresses)

    # Inside

    async def _tell(self, context: grpc.aio.ServicerContext, out: "asyncio.Queue[dpb.LeaderMessage]") -> None:
        while True:
            await context.write(await out.get())

    async def _hear(self, message: dpb.AgentMessage, out: "asyncio.Queue[dpb.LeaderMessage]") -> None:
        if message.HasField("statuses"):
            await self._note(message.statuses)
            acknowledged = dpb.StatusAcknowledged(sequence=message.statuses.sequence)
            await out.put(dpb.LeaderMessage(acknowledged=acknowledged))
        elif message.HasField("heartbeat"):
            self.heartbeats += 1
        elif message.HasField("network_applied"):
            async with self._changed:
                self.applied = message.network_applied.sequence
                self._changed.notify_all()
        elif message.HasField("resync"):
            await out.put(dpb.LeaderMessage(assignment=self._complete()))
        elif message.HasField("blobs_held"):
            told = message.blobs_held
            self.held = (self.held - {*told.removed}) | {*told.added}

    async def _note(self, report: dpb.StatusReport) -> None:
        async with self._changed:
            for task in report.tasks:
                before = self.statuses.get(task.task_id)
                if before is not None:
                    states.check(before.state, task.status.state, states.Owner.AGENT)
                self.statuses[task.task_id] = task.status
                self.history.setdefault(task.task_id, []).append(task.status)
            self._changed.notify_all()

    def _complete(self) -> dpb.Assignment:
        return dpb.Assignment(
            type=dpb.Assignment.TYPE_COMPLETE,
            results_in=self._sequence,
            tasks=self._tasks.values(),
            revisions=self._revisions.values(),
            network=self.network,
            services=self.services.values(),
            withdrawn_tasks=self._withdrawn,
        )

    async def _send_change(self, change: dpb.Assignment) -> None:
        change.type = dpb.Assignment.TYPE_INCREMENTAL
        change.applies_to, change.results_in = self._sequence, self._sequence + 1
        self._sequence += 1
        if self._out is not None:
            await self._out.put(dpb.LeaderMessage(assignment=change))


def task(name: str, *, desired: pb.DesiredState.ValueType = pb.DESIRED_STATE_RUNNING, revision: str = "r1") -> pb.Task:
    """A task as the leader assigns it."""
    return pb.Task(
        meta=pb.Meta(id=name, name=name, namespace="default"),
        service="web",
        revision_id=revision,
        slot=1,
        node_id="n",
        desired_state=desired,
        status=pb.TaskStatus(state=states.ASSIGNED),
    )


def template(*command: str, image: str = "hello:1", **more: object) -> pb.TaskTemplate:
    """A template with every default filled in, as a revision has it."""
    container = pb.Container(image=image, command=command)
    restart = pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000)
    made = pb.TaskTemplate(container=container, restart=restart, stop_grace_period=10_000)
    made.MergeFrom(pb.TaskTemplate(**more))  # type: ignore[arg-type]  # field names are the caller's
    return made


def service(  # what a service of the cluster looks like to its nodes
    name: str = "web", *endpoints: dpb.Endpoint, ports: Sequence[pb.Port] = (), number: int = 1, **more: object
) -> dpb.NetworkService:
    """A service with a virtual address, in its namespace's own network."""
    made = dpb.NetworkService(
        id=f"id-of-{name}",
        namespace="default",
        name=name,
        address=f"10.113.0.{number}" if ports else "",
        ports=ports,
        endpoints=endpoints,
    )
    made.MergeFrom(dpb.NetworkService(**more))  # type: ignore[arg-type]  # field names are the caller's
    if not made.networks:
        made.networks.append("default/default")
    return made


def endpoint(address: str, *, ready: bool = True) -> dpb.Endpoint:
    """A task that has the address."""
    return dpb.Endpoint(task_id=address, slot=1, node_id="n", address=address, ready=ready)


def input_frame(**fields: object) -> dpb.StreamFrame:
    """Input for a command."""
    return dpb.StreamFrame(input=cpb.ExecRequest(**fields))  # type: ignore[arg-type]

"""A node without a machine: fakes of the agent's ports, for unit tests and the simulation.

Two rules: everything happens on the event loop's time, so a virtual clock drives it; and what survives an agent's
death on a real node (disk, containers, network) lives in `FakeMachine`, which outlives the fakes' user.
"""

import asyncio
import contextvars
import dataclasses
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.core.container import ContainerRequest, NodeContext, PreparedImage
from agent.core.isolation import DeviceNode
from agent.core.network import Attachment
from agent.core.record import Exit, Record
from agent.core.users import Ids
from agent.errors import NoSuchTask, Refused, StartFailed, Temporary
from agent.ports import ContainerState, Exec, Memory, Usage
from protos import containers, families
from protos.link import Link, LinkLost
from protos.orch.v1 import control_pb2 as cpb
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb
from tests.support.fake_exec import FakeExec

NODE = NodeContext(
    name="n1",
    cgroup_parent="/orch/test",
    base={"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]}},
)

IDS = Ids(first=1 << 20, count=1 << 24)
"""256 ranges."""


BIRTH_MS = 1_000_000_000_000
ONCE = "/once"
"""The program of a container that does its work and ends."""


def loop_ms() -> int:
    """The event loop's time as a wall clock that began in 2001."""
    return BIRTH_MS + int(asyncio.get_running_loop().time() * 1000)


@dataclass(slots=True)
class FakeContainer:
    """A container of the fake machine."""

    request: ContainerRequest
    pid: int
    started_at: int
    ends_on_signal: bool = True
    exit: Exit | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    until_s: float = 0  # when its monitor kills it; 0: never

    def lease(self, until_s: float) -> None:
        """As its monitor does, whether there is an agent or not, and though that may be frozen."""
        self.until_s = until_s
        asyncio.get_running_loop().call_at(until_s, self._end_lease, context=contextvars.Context())

    def _end_lease(self) -> None:
        if self.exit is None and self.until_s <= asyncio.get_running_loop().time():
            self.exit = Exit(code=137, finished_at=loop_ms())
            self.ended.set()

    def end_well(self) -> None:
        """It has done its work, unless something ended it before."""
        if self.exit is None:
            self.exit = Exit(code=0, finished_at=loop_ms())
            self.ended.set()

    def state(self) -> ContainerState:
        """As a runtime tells of it."""
        (mapping, *_) = self.request.config["linux"].get("uidMappings") or [{"hostID": 0}]
        return ContainerState(pid=self.pid, started_at=self.started_at, exit=self.exit, root_id=mapping["hostID"])


@dataclass(slots=True)
class FakeMachine:
    """What is there however often the agent dies: disk, containers, network, images."""

    images: dict[str, PreparedImage] = field(default_factory=dict)
    asked_images: list[tuple[str, str]] = field(default_factory=list)  # (name, the digest that was settled)
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    attached: dict[str, Attachment] = field(default_factory=dict)
    assignment: dpb.SavedAssignment = field(default_factory=dpb.SavedAssignment)
    records: dict[str, Record] = field(default_factory=dict)
    last_addresses: tuple[str, ...] = ()
    volumes: set[tuple[str, str]] = field(default_factory=set)  # (task, name)
    network: dpb.NodeNetwork | None = None
    services: dict[str, dpb.NetworkService] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    delay_s: float = 0  # how long a start, an image or a write takes
    ignores_stop: bool = False
    ends_at_once: int | None = None  # every container ends with this exit code before its start returns
    start_failure: StartFailed | None = None
    network_failure: Temporary | None = None
    unwell: set[tuple[str, str]] = field(default_factory=set)  # (task, port) whose probes get bad answers
    slow_start_s: float = 0  # for how long a container that has started answers no probe well
    once_s: float = 0.2  # how long a container of the program ONCE takes
    askings: int = 0
    answered_well: set[tuple[str, int]] = field(default_factory=set)  # (task, when its container was started)
    answered_badly: set[str] = field(default_factory=set)
    stops: list[tuple[str, float]] = field(default_factory=list)  # (task, the loop's time of its stop signal)
    next_pid: int = 1000

    def add_image(self, name: str = "hello:1") -> None:
        """Have an image on the node."""
        self.images[name] = PreparedImage(digest=digest(len(self.images)), layers=("/layers/1",), cmd=("/web",))

    def running(self) -> dict[str, FakeContainer]:
        """The containers that run."""
        return {name: container for name, container in self.containers.items() if container.exit is None}

    def crash(self, task_id: str, code: int = 1, *, memory_limit: int = 0) -> None:
        """End a container from within; with a memory limit, because of it."""
        container = self.containers[task_id]
        assert container.exit is None, f"{task_id} has ended before"
        container.exit = Exit(code=code, finished_at=loop_ms(), oom_killed=memory_limit > 0, memory_limit=memory_limit)
        container.ended.set()


def digest(number: int) -> str:
    """Of the image that was put on a machine after so many others."""
    return f"sha256:{number:064x}"


class FakeImages:
    """Images that are on the machine, or not anywhere."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def prepare(
        self,
        reference: str,
        digest: str,
        policy: "pb.ImagePullPolicy.ValueType" = pb.IMAGE_PULL_POLICY_MISSING,
    ) -> PreparedImage:
        del policy  # all that there is is here
        self._machine.asked_images.append((reference, digest))
        await asyncio.sleep(self._machine.delay_s)
        image = self._machine.images.get(reference)
        if image is None:
            raise Refused(f"there is no image {reference}", reason="ImageMissing")
        return dataclasses.replace(image, digest=digest or image.digest)


class FakeDevices:
    """A node without devices."""

    def named_by(self, container: pb.Container) -> Mapping[str, DeviceNode]:
        if container.devices:
            raise Refused(f"this node has no {container.devices[0].path}", reason="DeviceMissing")
        return {}


class FakeNetwork:
    """A network in a dictionary, which refuses what a real one could not have."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def configure(
        self,
        network: dpb.NodeNetwork,
        services: Mapping[str, dpb.NetworkService],
        attached: tuple[Attachment, ...],
    ) -> None:
        await asyncio.sleep(self._machine.delay_s)
        if self._machine.network_failure is not None:
            raise self._machine.network_failure
        del attached
        self._machine.network = network
        self._machine.services = dict(services)

    async def serve(self, services: Mapping[str, dpb.NetworkService], touched: Collection[str]) -> None:
        await asyncio.sleep(self._machine.delay_s)
        if self._machine.network_failure is not None:
            raise self._machine.network_failure
        before = self._machine.services
        others = {key for key in before.keys() | services.keys() if before.get(key) != services.get(key)}
        assert others <= set(touched), "whatever is other than before is said to be"
        self._machine.services = dict(services)

    async def attach(self, attachment: Attachment) -> None:
        await asyncio.sleep(self._machine.delay_s)
        for other in self._machine.attached.values():
            same = other.task_id == attachment.task_id
            shared = set(families.every(other)) & set(families.every(attachment))
            assert same or not shared, f"{shared} is given twice"
            assert same or not attachment.root_id or other.root_id != attachment.root_id, "users are given twice"
        self._machine.attached[attachment.task_id] = attachment

    async def detach(self, attachment: Attachment) -> None:
        self._machine.attached.pop(attachment.task_id, None)

    async def attached(self) -> frozenset[str]:
        return frozenset(self._machine.attached)

    def namespace_of(self, task_id: str) -> str:
        return f"/run/netns/{task_id}"

    def users_of(self, task_id: str) -> str:
        return f"/run/userns/{task_id}"


class FakeRuntime:
    """Containers in a dictionary."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def start(self, request: ContainerRequest) -> ContainerState:
        machine, name = self._machine, request.container_id
        await asyncio.sleep(machine.delay_s)
        assert name not in machine.containers, f"two containers called {name}"
        machine.starts[name] = machine.starts.get(name, 0) + 1
        if machine.start_failure is not None:
            raise machine.start_failure
        machine.next_pid += 1
        container = FakeContainer(
            request=request,
            pid=machine.next_pid,
            started_at=loop_ms(),
            ends_on_signal=not machine.ignores_stop,
        )
        task_id, _ = containers.split(name)
        running = ((containers.split(other)[0], one) for other, one in machine.running().items())
        others = {one.state().root_id for other, one in running if other != task_id} - {0}
        assert container.state().root_id not in others, f"{name} runs with the users of another"
        machine.containers[name] = container
        if request.until_s:
            container.lease(request.until_s)
        if request.config["process"]["args"][:1] == [ONCE]:
            asyncio.get_running_loop().call_later(machine.once_s, container.end_well)
        if machine.ends_at_once is not None:
            machine.crash(name, machine.ends_at_once)
        return container.state()

    async def containers(self) -> Mapping[str, ContainerState]:
        return {name: container.state() for name, container in self._machine.containers.items()}

    async def wait(self, container_id: str) -> Exit:
        container = self._container(container_id)
        await container.ended.wait()
        assert container.exit is not None, "ended without an exit"
        return container.exit

    def clock_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def extend(self, container_id: str, until_s: float) -> None:
        container = self._machine.containers.get(container_id)
        if container is not None and container.exit is None:
            container.lease(until_s)

    async def signal(self, container_id: str, name: str) -> None:
        container = self._machine.containers.get(container_id)
        if name != "SIGKILL":
            self._machine.stops.append((container_id, asyncio.get_running_loop().time()))
        if container is not None and container.exit is None and (container.ends_on_signal or name == "SIGKILL"):
            self._machine.crash(container_id, 137 if name == "SIGKILL" else 143)

    async def delete(self, container_id: str) -> None:
        await asyncio.sleep(self._machine.delay_s)
        container = self._machine.containers.pop(container_id, None)
        if container is not None and container.exit is None:
            container.exit = Exit(code=137, finished_at=loop_ms())
            container.ended.set()

    async def execute(self, container_id: str, start: cpb.ExecStart) -> Exec:
        self._container(container_id)
        return FakeExec(start)

    async def usage(self, container_ids: Collection[str]) -> Mapping[str, Usage]:
        there = (one for one in container_ids if one in self._machine.containers)
        return {one: Usage(cpu_ns=1_000_000, memory_bytes=1 << 20, pids=1) for one in there}

    def _container(self, container_id: str) -> FakeContainer:
        if container_id not in self._machine.containers:
            raise NoSuchTask(f"{container_id} has no container on this node")
        return self._machine.containers[container_id]


class FakeDisk:
    """A disk in a dictionary. What it holds is a copy, as a real one's bytes are."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def load(self) -> Memory:
        copy = dpb.SavedAssignment()
        copy.CopyFrom(self._machine.assignment)
        return Memory(assignment=copy, records=dict(self._machine.records), last_addresses=self._machine.last_addresses)

    async def save_assignment(self, assignment: dpb.SavedAssignment) -> None:
        copy = dpb.SavedAssignment()
        copy.CopyFrom(assignment)
        await asyncio.sleep(self._machine.delay_s)
        self._machine.assignment = copy

    async def save_record(self, task_id: str, record: Record) -> None:
        self._machine.records[task_id] = record

    async def save_last_addresses(self, addresses: Sequence[str]) -> None:
        self._machine.last_addresses = tuple(addresses)

    async def make_volumes(self, task_id: str, names: Iterable[str]) -> str:
        for name in names:
            self._machine.volumes.add((task_id, name))
        return f"/volumes/{task_id}"

    async def remove_volumes(self, task_id: str) -> None:
        self._machine.volumes = {one for one in self._machine.volumes if one[0] != task_id}

    async def forget(self, task_id: str) -> None:
        self._machine.records.pop(task_id, None)
        await self.remove_volumes(task_id)


class FakeLogs:
    """The lines that a test has put there."""

    def __init__(self) -> None:
        self.lines: dict[str, list[cpb.LogLine]] = {}

    async def read(
        self, container_id: str, *, tail: int, since_ms: int, until: "asyncio.Future[None] | None"
    ) -> AsyncGenerator[list[cpb.LogLine], None]:
        if container_id not in self.lines:
            raise NoSuchTask(f"{container_id} has no log on this node")
        lines = [line for line in self.lines[container_id] if line.time_ns >= since_ms * 1_000_000]
        yield lines[-tail:] if tail >= 0 else lines
        if until is not None:
            await asyncio.wait({until})


class MemoryLink:
    """One end of a link in one process; `pair` makes both."""

    def __init__(self, inbox: "asyncio.Queue[object]", outbox: "asyncio.Queue[object]") -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._lost = ""

    async def send(self, message: object) -> None:
        if self._lost:
            raise LinkLost(self._lost)
        await self._outbox.put(message)

    async def receive(self) -> object:
        if self._lost:
            raise LinkLost(self._lost)
        message = await self._inbox.get()
        if isinstance(message, LinkLost):
            self._lost = str(message)
            raise message
        return message

    async def close(self, reason: str = "") -> None:
        if not self._lost:
            self._lost = reason or "closed"
            self._outbox.put_nowait(LinkLost(f"the other side has closed the link: {reason}"))


def pair() -> tuple[MemoryLink, MemoryLink]:
    """Both ends of a link."""
    there: asyncio.Queue[object] = asyncio.Queue(1000)
    back: asyncio.Queue[object] = asyncio.Queue(1000)
    return MemoryLink(there, back), MemoryLink(back, there)


class FakeConnector:
    """Hands the other ends of its links to the test, which plays the leader."""

    def __init__(self) -> None:
        self.sessions: asyncio.Queue[tuple[str, Link[dpb.LeaderMessage, dpb.AgentMessage]]] = asyncio.Queue(100)
        self.streams: asyncio.Queue[Link[dpb.StreamFrame, dpb.StreamFrame]] = asyncio.Queue(100)
        self.unreachable: set[str] = set()
        self.tried: list[str] = []

    async def connect(self, address: str) -> Link[dpb.AgentMessage, dpb.LeaderMessage]:
        self.tried.append(address)
        if address in self.unreachable:
            raise LinkLost(f"{address}: connection refused")
        mine, theirs = pair()
        await self.sessions.put((address, theirs))  # type: ignore[arg-type]  # the ends are untyped
        return mine  # type: ignore[return-value]

    async def open_stream(self) -> Link[dpb.StreamFrame, dpb.StreamFrame]:
        mine, theirs = pair()
        await self.streams.put(theirs)  # type: ignore[arg-type]
        return mine  # type: ignore[return-value]

"""A whole cluster in one event loop: control planes over one store, agents over fake machines, a network between."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator

from agent.session import Session
from agent.streams import Streams
from agent.worker import Worker
from controlplane import leader
from controlplane.api.writes import Writes
from controlplane.controllers.nodes import Ranges
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.store import errors, memory
from controlplane.store.cache import Cache
from controlplane.store.election import Elector
from protos import running
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.net import End, Network
from tests.sim.storage import RemoteStore
from tests.support import fake_agent
from tests.support.virtualtime import VirtualLoop

RANGES = Ranges(cluster="10.112.0.0/16", subnet_bits=24)
DEATH_S = 30.0
IMAGES = ("hello:1", "hello:2", "hello:3")


class Process:
    """Something that runs until it is killed. `work` is started in a task of its own."""

    def __init__(self, name: str, group: asyncio.TaskGroup, work: Callable[[], "asyncio._CoroutineLike[None]"]) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._task = group.create_task(self._run(work))

    async def _run(self, work: Callable[[], "asyncio._CoroutineLike[None]"]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the world reports it as a failure of the run
            self.failure = error

    async def kill(self) -> None:
        """Cancels it. What does not end within `DEATH_S` is a bug of the process: it swallowed its cancellation."""
        self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=DEATH_S)
        assert done, f"{self.name} survived its cancellation"


class ControlPlane:
    """One control-plane instance, as `controlplane.instance` wires it."""

    def __init__(self, name: str, cluster: "Cluster") -> None:
        self.name = name
        self._cluster = cluster
        self.store = RemoteStore(cluster.store, cluster.network, name, cluster.chance)
        self.cache = Cache(self.store)
        self.skew_ms = cluster.chance.randint(-2_000, 2_000)
        self.dispatcher = Dispatcher(self.cache.snapshot, cluster.leader_of, cluster.new_id)
        self.writes = Writes(self.store, self.cache, now_ms=self.now_ms, new_id=cluster.new_id)
        self.process = Process(name, cluster.group, self._run)
        self._sessions: asyncio.TaskGroup | None = None

    def now_ms(self) -> int:
        """This machine's clock, which is not quite that of the others."""
        return self._cluster.now_ms() + self.skew_ms

    def accept(self, link: End) -> None:
        """An agent has called."""
        if self._sessions is not None:
            self._sessions.create_task(self.dispatcher.serve(link))

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._sessions = group
            group.create_task(self.cache.run())
            group.create_task(self._campaign())

    async def _campaign(self) -> None:
        elector = Elector(self.store, identity=self.name, address=self.name)
        while True:
            await self.cache.wait_for(1, timeout_s=3_600)
            await running.until_failure(self._lead_once(elector), expected=(errors.Deposed, errors.Temporary))
            await asyncio.sleep(0.1)

    async def _lead_once(self, elector: Elector) -> None:
        async with elector.leading() as leadership:
            await self.cache.wait_for(leadership.fence.version, timeout_s=10)
            self._cluster.leads(self.name)
            await leader.lead(
                store=self.store,
                cache=self.cache,
                fence=leadership.fence,
                dispatcher=self.dispatcher,
                world=self._world(),
            )

    def _world(self) -> leader.World:
        chance = random.Random(self._cluster.chance.random())
        return leader.World(now_ms=self.now_ms, random=chance, suffixes=self._cluster.suffixes(), ranges=RANGES)


class Agent:
    """A node: a machine that keeps its disk and containers, and an agent that dies and returns."""

    def __init__(self, name: str, cluster: "Cluster") -> None:
        self.name = name
        self._cluster = cluster
        self.machine = fake_agent.FakeMachine(delay_s=0.01)
        for image in IMAGES:
            self.machine.add_image(image)
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        """Starts the agent; what is on the machine already is adopted."""
        self.process = Process(self.name, self._cluster.group, self._run)

    async def kill(self, *, machine_too: bool) -> None:
        """`kill -9` of the agent, or of the whole machine with its containers (the disk stays)."""
        self._cluster.network.kill(self.name, silently=machine_too)
        if self.process is not None:
            await self.process.kill()
            self.process = None
        if machine_too:
            for task_id in list(self.machine.running()):
                self.machine.crash(task_id, 137)
            self.machine.containers.clear()
            self.machine.attached.clear()

    async def _run(self) -> None:
        chance = random.Random(self._cluster.chance.random())
        runtime, connector = fake_agent.FakeRuntime(self.machine), _Connector(self.name, self._cluster)
        worker = Worker(
            runtime=runtime,
            images=fake_agent.FakeImages(self.machine),
            network=fake_agent.FakeNetwork(self.machine),
            disk=fake_agent.FakeDisk(self.machine),
            node=fake_agent.NODE,
            now_ms=self._cluster.now_ms,
            chance=chance,
        )
        session = Session(
            connector=connector,
            worker=worker,
            streams=Streams(connector=connector, runtime=runtime, logs=fake_agent.FakeLogs(), over=worker.over),
            servers=self._cluster.control_plane_names,
            register=self._register(),
            chance=chance,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            group.create_task(session.run())

    def _register(self) -> wire.Register:
        number = int(self.name.strip("n"))
        capacity = pb.NodeCapacity(cpu=4_000, memory=2**30, tasks=20)
        description = pb.NodeDescription(hostname=self.name, address=f"192.0.2.{number}", capacity=capacity)
        return wire.Register(node_id=f"id-{self.name}", node_name=self.name, description=description)


class _Connector:
    """`ports.Connector` over the simulated network."""

    def __init__(self, owner: str, cluster: "Cluster") -> None:
        self._owner = owner
        self._cluster = cluster

    async def connect(self, address: str) -> Link[wire.AgentMessage, wire.LeaderMessage]:
        await asyncio.sleep(0.001)
        target = self._cluster.control_planes.get(address)
        if target is None or self._cut_off_from(address):
            raise LinkLost(f"{address} does not answer")
        mine, theirs = self._cluster.network.link(self._owner, address)
        target.accept(theirs)
        return mine

    async def open_stream(self) -> Link[wire.StreamFrame, wire.StreamFrame]:
        raise LinkLost("nobody streams in the simulation")

    def _cut_off_from(self, address: str) -> bool:
        network = self._cluster.network
        return network.is_cut(self._owner, address) or network.is_cut(address, self._owner)


class Cluster:
    """Everything there is. `chance` is the seed's."""

    def __init__(
        self, chance: random.Random, group: asyncio.TaskGroup, store: memory.MemoryStore, *, planes: int, nodes: int
    ) -> None:
        self.chance = chance
        self.group = group
        self.store = store
        self.network = Network(chance)
        self._ids = itertools.count(1)
        self._leader = ""
        self.control_plane_names = [f"cp{number}" for number in range(1, planes + 1)]
        self.control_planes: dict[str, ControlPlane] = {}
        for name in self.control_plane_names:
            self.start_control_plane(name)
        self.agents = {name: Agent(name, self) for name in (f"n{number}" for number in range(1, nodes + 1))}

    def now_ms(self) -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "the simulation runs in virtual time"
        return loop.now_ms()

    def new_id(self) -> str:
        return f"id{next(self._ids):06d}"

    def suffixes(self) -> Iterator[str]:
        while True:
            yield f"x{next(self._ids):07d}"

    def leads(self, name: str) -> None:
        """Who won the last election."""
        self._leader = name

    def leader_of(self) -> tuple[str, str]:
        """What followers tell agents; it may be out of date, as in life."""
        return self._leader, self._leader

    def start_control_plane(self, name: str) -> None:
        """Starts an instance under a name that none has now."""
        self.control_planes[name] = ControlPlane(name, self)

    async def kill_control_plane(self, name: str) -> None:
        """`kill -9`: nothing that it still wants to say is heard."""
        instance = self.control_planes.pop(name)
        instance.store.kill()
        self.network.kill(name, silently=False)
        await instance.process.kill()

    def failures(self) -> list[tuple[str, BaseException]]:
        """Processes that ended by an error of their own."""
        processes = [plane.process for plane in self.control_planes.values()]
        processes += [agent.process for agent in self.agents.values() if agent.process is not None]
        return [(process.name, process.failure) for process in processes if process.failure is not None]

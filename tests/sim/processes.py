"""Simulated processes: the control plane's instances and the agents, wired as their programs wire them.

Two rules: a process is everything that runs in its context, so that it can be killed, frozen and thawed as one; and
what outlives it (the store, a machine's disk and containers) is never held by it alone.
"""

import asyncio
import contextvars
import itertools
import math
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

from agent.core.container import NodeContext
from agent.core.users import IdPool
from agent.holdings import Holdings
from agent.servers import Servers
from agent.session import Session
from agent.streams import Answers, Streams
from agent.worker import Worker
from controlplane import instance, leader
from controlplane.api.writes import Writes
from controlplane.controllers.nodes import Ranges
from controlplane.core import scheduler
from controlplane.core.events import Limits
from controlplane.store import memory
from protos.link import Link, LinkLost
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import stocks, zones
from tests.sim.net import End, Network
from tests.sim.storage import RemoteStore
from tests.support import fake_agent
from tests.support.fake_checks import FakeChecks, FakeCommits, FakeDoctor, FakeMeter
from tests.support.fake_names import FakeNames
from tests.support.fake_prober import FakeProber
from tests.support.virtualtime import OWNER, running_loop

RANGES = Ranges(
    cluster="10.112.0.0/16",
    subnet_bits=24,
    services="10.201.0.0/16",
    cluster6="fd00:112::/48",
    subnet_bits6=64,
    services6="fd00:201::/112",
)
"""Of both families: what must hold of an address holds of each."""
EVENTS = Limits(per_namespace=30, in_all=40, slack=5)
"""Few enough that they are reached in each run."""
DEATH_S = 30.0
IMAGES = ("hello:1", "hello:2", "hello:3")
MISSING_IMAGE = "missing:1"
"""The cluster does not have it, and neither does any node."""


class World(Protocol):
    """What a process finds around it."""

    chance: random.Random
    group: asyncio.TaskGroup
    store: memory.MemoryStore
    network: Network
    control_plane_names: list[str]
    control_planes: "dict[str, ControlPlane]"
    ids: "itertools.count[int]"
    stocked: bool
    """Whether nodes keep what they have prepared."""
    strategy: scheduler.Strategy
    """Of every instance."""


class Process:
    """Something that runs until it is killed. `work` is started in a task and a context of its own."""

    def __init__(self, name: str, group: asyncio.TaskGroup, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self.context = contextvars.copy_context()
        self.context.run(OWNER.set, name)
        self._task = group.create_task(self._run(work), context=self.context)

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the world reports it as a failure of the run
            self.failure = error

    async def kill(self) -> None:
        """Cancels it. What does not end within `DEATH_S` is a bug of the process: it swallowed its cancellation."""
        running_loop().thaw(self.name)
        self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=DEATH_S)
        assert done, f"{self.name} survived its cancellation"


class ControlPlane:
    """One control-plane instance without its network edge."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.skew_ms = world.chance.randint(-2_000, 2_000)
        self.store = RemoteStore(world.store, world.network, name, world.chance)
        self._ids = world.ids
        drawn = random.Random(world.chance.random())
        self.moves_per_minute = world.chance.choice([0, 6, 60])
        self.instance = instance.Instance(
            self.store,
            instance.Identity(name=name, address=name),
            leader.World(
                now_ms=self.now_ms,
                random=drawn,
                suffixes=self._suffixes(),
                ranges=RANGES,
                events=EVENTS,
                strategy=world.strategy,
                rebalance_moves_per_minute=self.moves_per_minute,
            ),
            new_id=self._new_id,
        )
        self.writes = Writes(self.store, self.instance.cache, now_ms=self.now_ms, new_id=self._new_id)
        self._sessions: asyncio.TaskGroup | None = None
        self.process = Process(name, world.group, self._run)

    def now_ms(self) -> int:
        """This machine's clock, which is not quite that of the others."""
        return fake_agent.loop_ms() + self.skew_ms

    def accept(self, link: End) -> None:
        """An agent has called. Raises LinkLost when the process is about to end."""
        if self._sessions is None:
            return
        serving = self.instance.dispatcher.serve(link)
        try:
            self._sessions.create_task(serving, context=self.process.context.copy())
        except RuntimeError as ending:  # a part of it has failed, and the others are being ended
            serving.close()
            raise LinkLost(f"{self.name} ends") from ending

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._sessions = group
            group.create_task(self.instance.run())

    def _new_id(self) -> str:
        return f"id{next(self._ids):06d}"

    def _suffixes(self) -> Iterator[str]:
        return (f"x{number:07d}" for number in self._ids)


def images() -> Iterator[pb.Image]:
    """Those that the cluster has, as a push would have stored them."""
    for number, name in enumerate(IMAGES):
        digest, consists_of = fake_agent.digest(number), stocks.layers(number)
        status = pb.ImageStatus(digest=digest, size=1, platform="linux/amd64", layers=2, blobs=consists_of)
        yield pb.Image(meta=pb.Meta(id=f"image-{number}", name=name, generation=1), status=status)


class Agent:
    """A node: a machine that keeps its disk and containers, and an agent that dies and returns."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.skew_ms = world.chance.randint(-2_000, 2_000)
        self._world = world
        self.machine = fake_agent.FakeMachine(delay_s=world.chance.choice([0.001, 0.01, 0.01, 0.1, 1.0]))
        self.holdings = Holdings()
        self.machine.ignores_stop = world.chance.random() < 0.1
        self.machine.slow_start_s = world.chance.choice([0, 0, 0.3, 1.0])
        self.clock_jumped_s = -math.inf
        for image in IMAGES:
            self.machine.add_image(image)
        self.process: Process | None = None
        self._session: Session | None = None
        self.start()

    @property
    def node_id(self) -> str:
        return f"id-{self.name}"

    def now_ms(self) -> int:
        """This machine's clock."""
        return fake_agent.loop_ms() + self.skew_ms

    def start(self) -> None:
        """Starts the agent; what is on the machine already is adopted."""
        self.process = Process(self.name, self._world.group, self._run)

    async def end_in_order(self, back_within_ms: int) -> None:
        """SIGTERM: it says that it is back within this time, if anybody hears it, and ends. Containers run on."""
        if self.process is not None and self._session is not None:
            saying = self._session.leave(back_within_ms)
            await self._world.group.create_task(saying, context=self.process.context.copy())
        await self.kill(machine_too=False)

    async def kill(self, *, machine_too: bool) -> None:
        """`kill -9` of the agent, or of the whole machine with its containers (the disk stays)."""
        self._world.network.kill(self.name, silently=machine_too)
        if self.process is not None:
            await self.process.kill()
            self.process = None
        if machine_too:
            for task_id in list(self.machine.running()):
                self.machine.crash(task_id, 137)
            self.machine.containers.clear()
            self.machine.attached.clear()

    async def _run(self) -> None:
        chance = random.Random(self._world.chance.random())
        runtime, connector = fake_agent.FakeRuntime(self.machine), _Connector(self.name, self._world)
        worker = Worker(
            runtime=runtime,
            prober=FakeProber(self.machine),
            images=self._images(),
            network=fake_agent.FakeNetwork(self.machine),
            names=FakeNames(),
            disk=fake_agent.FakeDisk(self.machine),
            devices=fake_agent.FakeDevices(),
            users=IdPool(fake_agent.IDS),
            node=NodeContext(name=self.name, cgroup_parent="/orch/sim", base=fake_agent.NODE.base),
            now_ms=self.now_ms,
            chance=chance,
        )
        self._session = session = Session(
            connector=connector,
            worker=worker,
            streams=Streams(
                connector=connector,
                runtime=runtime,
                logs=fake_agent.FakeLogs(),
                answers=Answers(checks=FakeChecks(), meter=FakeMeter(), doctor=FakeDoctor()),
                commits=FakeCommits(),
                over=worker.over,
                now_ms=self.now_ms,
            ),
            servers=Servers(self._world.control_plane_names),
            register=self._register(),
            holdings=self.holdings,
            chance=chance,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            group.create_task(session.run())

    def _images(self) -> fake_agent.FakeImages:
        if self._world.stocked:
            return stocks.KeptImages(self.machine, self.holdings)
        return fake_agent.FakeImages(self.machine)

    def _register(self) -> wire.Register:
        number = int(self.name.strip("n"))
        capacity = pb.NodeCapacity(cpu=4_000, memory=2**30, tasks=20, pids=2_000, disk=2**30)
        capacity.generic["gpu"].ids.append("0")
        description = pb.NodeDescription(hostname=self.name, address=f"192.0.2.{number}", capacity=capacity)
        labels = {zones.LABEL: zones.of_number(number)}
        return wire.Register(node_id=self.node_id, node_name=self.name, description=description, labels=labels)


class _Connector:
    """`ports.Connector` over the simulated network."""

    def __init__(self, owner: str, world: World) -> None:
        self._owner = owner
        self._world = world

    async def connect(self, address: str) -> Link[wire.AgentMessage, wire.LeaderMessage]:
        await asyncio.sleep(0.001)
        target = self._world.control_planes.get(address)
        network = self._world.network
        if target is None or network.is_cut(self._owner, address) or network.is_cut(address, self._owner):
            raise LinkLost(f"{address} does not answer")
        mine, theirs = network.link(self._owner, address)
        target.accept(theirs)
        return mine

    async def open_stream(self) -> Link[wire.StreamFrame, wire.StreamFrame]:
        raise LinkLost("nobody streams in the simulation")

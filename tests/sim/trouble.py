"""What goes wrong, drawn from the seed. Whatever lasts is mended by `mend_everything`, at the latest.

Two rules: a fault is something that happens to real clusters, and it says in the story what it did.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from agent.errors import StartFailed
from controlplane.store import memory
from tests.sim import stocks
from tests.sim.cluster import Cluster
from tests.sim.people import LIVENESS_PORT, READINESS_PORT, SERVICES
from tests.sim.processes import Agent, ControlPlane
from tests.sim.story import Story

Fault = Callable[[], Awaitable[None]]


class Trouble:
    """Faults of machines, processes, network, store and clocks."""

    def __init__(
        self, cluster: Cluster, store: memory.MemoryStore, chance: random.Random, group: asyncio.TaskGroup, story: Story
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._chance = chance
        self._group = group
        self._story = story
        self._calm = asyncio.Event()

    def faults(self) -> list[Fault]:
        """What may happen next; what stands here twice happens twice as often."""
        machines: list[Fault] = [self.crash_container, self._kill_agent, self._kill_machine]
        processes: list[Fault] = [self._kill_plane, self._freeze, self._freeze_leader]
        room = [self._make_room] if self._cluster.stocked else []
        restarts = [self._restart_in_order] * 2 if self._cluster.orderly else []
        return [
            *machines,
            *machines,
            *room,
            *restarts,
            *processes,
            self._crash_loop,
            self._make_unwell,
            self._refuse_starts,
            self._cut,
            self._cut,
            self._heal,
            self._lapse,
            self._compact,
            self._miss_history,
            self._pause_watches,
            self._jump_clock,
        ]

    def set_weather(self) -> None:
        """How the network is during the storm."""
        weather = self._cluster.network.weather
        if self._chance.random() < 0.6:
            weather.lose, weather.double = self._chance.choice([0.0, 0.01, 0.05]), self._chance.choice([0.0, 0.05])
            weather.late = self._chance.choice([0.0, 0.05, 0.2])
        self._story.say(f"weather: {weather}")

    def mend_everything(self) -> None:
        """The storm is over: every machine and process runs, and nothing but the weather is between them."""
        self._calm.set()
        self._cluster.network.heal()
        self._store.resume_watches()
        for name in (*self._cluster.control_plane_names, *self._cluster.agents):
            self._cluster.thaw(name)
        for name in self._cluster.control_plane_names:
            if name not in self._cluster.control_planes:
                self._cluster.start_control_plane(name)
        for agent in self._cluster.agents.values():
            agent.machine.start_failure = None
            agent.machine.unwell.clear()
            if agent.process is None:
                agent.start()
        self._story.say("calm: everything is mended")

    def end_weather(self) -> None:
        """From now on every message arrives, once and in time. What was lost before has to be noticed by itself."""
        weather = self._cluster.network.weather
        weather.lose = weather.double = weather.late = 0.0
        self._story.say("the weather is fine")

    # Containers and machines ------------------------------------------------------------------------------------------

    async def crash_container(self) -> None:
        agent = self._any_agent()
        running = sorted(agent.machine.running())
        if running:
            victim = self._chance.choice(running)
            self._story.say(f"fault: container {victim} crashes")
            agent.machine.crash(victim, self._chance.choice([0, 1, 137]))

    async def _crash_loop(self) -> None:
        service, lives_s = self._chance.choice(SERVICES), self._chance.choice([0.05, 0.5, 2.0])
        self._group.create_task(self._crash_again_and_again(service, lives_s, self._chance.uniform(5, 20)))

    async def _crash_again_and_again(self, service: str, lives_s: float, for_s: float) -> None:
        self._story.say(f"fault: containers of {service} crash after {lives_s:g} s, for {for_s:.1f} s")
        ends = asyncio.get_running_loop().time() + for_s
        while asyncio.get_running_loop().time() < ends and not self._calm.is_set():
            for agent in self._cluster.agents.values():
                for name in sorted(agent.machine.running()):
                    if name.startswith(f"{service}-"):
                        agent.machine.crash(name, self._chance.choice([0, 1, 139]))
            await asyncio.sleep(lives_s)

    async def _make_unwell(self) -> None:
        """A container whose probes get bad answers for a while, or until it is replaced."""
        machine = self._any_agent().machine
        running = sorted(machine.running())
        if not running:
            return
        victim, port = self._chance.choice(running), self._chance.choice([READINESS_PORT, LIVENESS_PORT])
        machine.unwell.add((victim, port))
        self._story.say(f"fault: {victim} answers badly on port {port}")

        def heal() -> None:
            machine.unwell.discard((victim, port))

        well_again = self._later(self._chance.uniform(1, 15), f"{victim} answers well on port {port}", heal)
        self._group.create_task(well_again)

    async def _refuse_starts(self) -> None:
        agent = self._any_agent()
        if agent.machine.start_failure is not None:
            self._story.say(f"{agent.name} starts containers again")
            agent.machine.start_failure = None
            return
        self._story.say(f"fault: {agent.name} refuses to start containers")
        agent.machine.start_failure = StartFailed("fork: out of memory", exit_code=125)

    async def _kill_agent(self) -> None:
        await self._kill(machine_too=False)

    async def _kill_machine(self) -> None:
        await self._kill(machine_too=True)

    async def _kill(self, *, machine_too: bool) -> None:
        agent = self._any_agent()
        if agent.process is None:
            self._story.say(f"{agent.name} starts")
            agent.start()
            return
        self._story.say(f"fault: {'machine' if machine_too else 'agent'} {agent.name} is killed")
        self._cluster.thaw(agent.name)
        await agent.kill(machine_too=machine_too)

    async def _restart_in_order(self) -> None:
        """It announces how long it is away, and is late now and then."""
        agent, within_ms = self._any_agent(), self._chance.choice([2_000, 10_000, 30_000])
        if agent.process is None:
            return
        away_s = within_ms / 1000 * self._chance.uniform(0.1, 1.4)
        self._story.say(f"agent {agent.name} ends in order for {within_ms} ms, and is away for {away_s:.1f} s")
        self._cluster.thaw(agent.name)
        await agent.end_in_order(within_ms)

        def start() -> None:
            if agent.process is None:
                agent.start()

        self._group.create_task(self._later(away_s, f"agent {agent.name} is back", start))

    async def _make_room(self) -> None:
        agent = self._any_agent()
        self._story.say(f"fault: {agent.name} makes room")
        stocks.make_room(agent.holdings, self._chance)

    def _any_agent(self) -> Agent:
        return self._chance.choice(list(self._cluster.agents.values()))

    # Processes --------------------------------------------------------------------------------------------------------

    async def _kill_plane(self) -> None:
        missing = [name for name in self._cluster.control_plane_names if name not in self._cluster.control_planes]
        if missing:
            self._story.say(f"control plane {missing[0]} starts")
            self._cluster.start_control_plane(missing[0])
            return
        victim = self._chance.choice(sorted(self._cluster.control_planes))
        self._cluster.thaw(victim)
        if self._chance.random() < 0.5:
            self._story.say(f"fault: control plane {victim} is killed")
            await self._cluster.kill_control_plane(victim)
        else:
            self._story.say(f"control plane {victim} is told to stop")
            await self._cluster.stop_control_plane(victim)

    async def _freeze(self) -> None:
        self._freeze_for_a_while(self._chance.choice([*self._cluster.control_plane_names, *self._cluster.agents]))

    async def _freeze_leader(self) -> None:
        leader = self._cluster.leader()
        if leader:
            self._freeze_for_a_while(leader)

    def _freeze_for_a_while(self, name: str) -> None:
        delay_s = self._chance.choice([0.5, 2.0, 4.0, 10.0])
        self._story.say(f"fault: {name} is frozen for {delay_s:g} s")
        self._cluster.freeze(name)
        self._group.create_task(self._later(delay_s, f"{name} is thawed", lambda: self._cluster.thaw(name)))

    async def _jump_clock(self) -> None:
        planes: list[ControlPlane | Agent] = list(self._cluster.control_planes.values())
        agents: list[ControlPlane | Agent] = list(self._cluster.agents.values())
        one = self._chance.choice(planes if planes and self._chance.random() < 0.5 else agents)
        by_ms = self._chance.choice([-10_000, -500, 500, 10_000])
        one.skew_ms += by_ms
        if isinstance(one, Agent):
            one.clock_jumped_s = asyncio.get_running_loop().time()
        self._story.say(f"fault: the clock of {one.name} jumps by {by_ms} ms")

    # Network and store ------------------------------------------------------------------------------------------------

    async def _cut(self) -> None:
        names = [*self._cluster.control_plane_names, *self._cluster.agents]
        one = self._chance.choice(names)
        other = self._chance.choice(["store", *self._cluster.control_plane_names])
        if one == other:
            return
        both = self._chance.random() < 0.5
        self._story.say(f"fault: nothing gets from {one} to {other}{', nor back' if both else ''}")
        self._cluster.network.cut(one, other)
        if both:
            self._cluster.network.cut(other, one)

    async def _heal(self) -> None:
        self._story.say("every cut is mended")
        self._cluster.network.heal()

    async def _lapse(self) -> None:
        lease = self._chance.randint(1, 6)
        self._story.say(f"fault: lease {lease} lapses")
        self._store.lapse(lease)

    async def _compact(self) -> None:
        listing = await self._store.list("/orch-none/")
        self._story.say(f"fault: history up to {listing.revision} is compacted")
        await self._store.compact(listing.revision)

    async def _miss_history(self) -> None:
        """Whoever is cut off for long finds that the store has forgotten what happened meanwhile."""
        name = self._chance.choice(sorted(self._cluster.control_plane_names))
        self._story.say(f"fault: {name} does not reach the store, which will forget its history")
        self._cluster.network.cut(name, "store")
        self._cluster.network.cut("store", name)
        self._group.create_task(self._forget_history(self._chance.uniform(2.0, 8.0)))

    async def _forget_history(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._compact()
        await self._heal()

    async def _pause_watches(self) -> None:
        delay_s = self._chance.choice([0.5, 3.0, 12.0])
        self._story.say(f"fault: the store's watches bring nothing for {delay_s:g} s")
        self._store.pause_watches()
        self._group.create_task(self._later(delay_s, "watches bring events again", self._store.resume_watches))

    async def _later(self, delay_s: float, what: str, call: Callable[[], None]) -> None:
        """Undoes a fault after a while, unless everything was mended before."""
        try:
            async with asyncio.timeout(delay_s):
                await self._calm.wait()
        except TimeoutError:
            self._story.say(what)
            call()

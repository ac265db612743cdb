"""A whole cluster in one event loop: control planes over one store, agents over fake machines, a network between."""

import asyncio
import itertools
import random

from agent.core.record import Record
from controlplane.core import scheduler
from controlplane.dispatcher.dispatcher import Dispatcher
from controlplane.store import memory
from tests.sim.net import Network, Observer
from tests.sim.processes import Agent, ControlPlane, Process
from tests.support.virtualtime import running_loop

LONGEST_END_S = 30.0
"""Withdrawal, draining, grace period and more."""


class Cluster:
    """Everything there is. `chance` is the seed's."""

    def __init__(
        self,
        chance: random.Random,
        group: asyncio.TaskGroup,
        store: memory.MemoryStore,
        observer: Observer,
        *,
        planes: int,
        nodes: int,
        stocked: bool = False,
        orderly: bool = False,
        strategy: scheduler.Strategy = scheduler.Strategy.SPREAD,
    ) -> None:
        self.chance = chance
        self.group = group
        self.stocked = stocked
        self.orderly = orderly
        self.strategy = strategy
        self.store = store
        self.network = Network(chance, observer)
        self.ids = itertools.count(1)
        self.control_plane_names = [f"cp{number}" for number in range(1, planes + 1)]
        self.control_planes: dict[str, ControlPlane] = {}
        for name in self.control_plane_names:
            self.start_control_plane(name)
        self.agents = {name: Agent(name, self) for name in (f"n{number}" for number in range(1, nodes + 1))}

    def start_control_plane(self, name: str) -> None:
        """Starts an instance under a name that none has now."""
        self.control_planes[name] = ControlPlane(name, self)

    async def kill_control_plane(self, name: str) -> None:
        """`kill -9`: nothing that it still wants to say is heard."""
        instance = self.control_planes.pop(name)
        instance.store.kill()
        self.network.kill(name, silently=False)
        await instance.process.kill()

    async def stop_control_plane(self, name: str) -> None:
        """SIGTERM: a leader resigns."""
        instance = self.control_planes.pop(name)
        await instance.process.kill()
        self.network.kill(name, silently=False)

    def leader(self) -> str:
        """The instance that believes that it leads; empty when there is none. There may be two for a moment."""
        return next((name for name, plane in self.control_planes.items() if plane.instance.leader().here), "")

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        running_loop().freeze(name)
        self.network.freeze(name)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.network.thaw(name)
        running_loop().thaw(name)

    def awake_control_planes(self) -> list[str]:
        """The instances that run and are not frozen."""
        return [name for name in sorted(self.control_planes) if not running_loop().is_frozen(name)]

    def in_order(self) -> bool:
        """Whether everything runs and everybody can reach everybody."""
        loop = running_loop()
        everybody = [*self.control_plane_names, *self.agents]
        running = len(self.control_planes) == len(self.control_plane_names) and all(
            agent.process is not None for agent in self.agents.values()
        )
        return running and not self.network.any_cut() and not any(map(loop.is_frozen, everybody))

    def running(self) -> dict[str, frozenset[str]]:
        """The containers that run, by node id."""
        return {agent.node_id: frozenset(agent.machine.running()) for agent in self.agents.values()}

    def machines(self) -> list[tuple[list[str], dict[str, Record]]]:
        """What runs on each node, and what its agent has noted."""
        machines = (agent.machine for agent in self.agents.values())
        return [(sorted(machine.running()), machine.records) for machine in machines]

    def records(self) -> dict[str, Record]:
        """What agents have noted of tasks, by task id."""
        return {task_id: one for agent in self.agents.values() for task_id, one in agent.machine.records.items()}

    def stops(self) -> list[tuple[str, float]]:
        """The tasks that have got their stop signal since the last time, and when. One's clock that has jumped may have
        let it be too early, and one that answered badly is not drained: these are left out.
        """
        found = []
        for agent in self.agents.values():
            for task_id, at_s in agent.machine.stops:
                if at_s - agent.clock_jumped_s > LONGEST_END_S and task_id not in agent.machine.answered_badly:
                    found.append((task_id, at_s))
            agent.machine.stops.clear()
        return found

    def answered_well(self, task_id: str, started_at: int) -> bool:
        """Whether a container of the task that was started then has answered a probe well."""
        return any((task_id, started_at) in agent.machine.answered_well for agent in self.agents.values())

    def dispatchers(self) -> list[Dispatcher]:
        """Of all instances that there are."""
        return [plane.instance.dispatcher for plane in self.control_planes.values()]

    def node_ids(self) -> list[str]:
        """Of all nodes."""
        return [agent.node_id for agent in self.agents.values()]

    def failures(self) -> list[tuple[str, BaseException]]:
        """Processes that ended by an error of their own."""
        processes: list[Process] = [plane.process for plane in self.control_planes.values()]
        processes += [agent.process for agent in self.agents.values() if agent.process is not None]
        return [(process.name, process.failure) for process in processes if process.failure is not None]

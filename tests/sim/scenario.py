"""One run: a cluster, a person who keeps changing things, faults drawn from the seed, then rest.

0 s ─── faults and changes ─── `STORM_S` ─── everything healed ─── at rest within `REST_S` ─── idle for `IDLE_S`
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog

from controlplane.core import request_errors
from controlplane.store import errors, memory
from protos import kinds, running, states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.sim.cluster import IMAGES, Cluster
from tests.sim.rules import Rules, Violation, unrest
from tests.sim.story import Story
from tests.support import virtualtime

STORM_S = 40.0
REST_S = 240.0
IDLE_S = 20.0
LONGEST_S = 2 * (STORM_S + REST_S + IDLE_S)
SERVICES = ("api", "db", "web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run went. `failure` is empty when every rule held."""

    seed: int
    failure: str
    story: Story
    commits: int
    virtual_s: float


def simulate(seed: int) -> Result:
    """Runs one seed. The same seed always gives the same result."""
    chance = random.Random(seed)
    story = Story()
    rules = Rules(story)
    failure, virtual_s = "", 0.0
    try:
        with _quiet():
            virtual_s = virtualtime.run(_Run(chance, story, rules).go(), chance)
    except* (Violation, virtualtime.Stuck) as group:
        failure = str(group.exceptions[0])
    return Result(seed=seed, failure=failure, story=story, commits=rules.commits, virtual_s=virtual_s)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No log: the story tells it better."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


class _Run:
    def __init__(self, chance: random.Random, story: Story, rules: Rules) -> None:
        self._chance = chance
        self._story = story
        self._rules = rules
        self._store = memory.MemoryStore(on_commit=self._on_commit, history_limit=400)
        self._broken: asyncio.Future[None] | None = None
        self._cluster: Cluster

    async def go(self) -> float:
        """The whole run; the virtual time that it took. Raises Violation."""
        running = asyncio.get_running_loop()
        self._broken = running.create_future()
        async with asyncio.TaskGroup() as group:
            self._cluster = Cluster(self._chance, group, self._store, planes=self._chance.choice([1, 3]), nodes=4)
            story = group.create_task(self._live())
            await asyncio.wait([story, self._broken], return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
            await story
            await self._stop_everything()
        return running.time()

    def _on_commit(self, revision: int, events: "tuple[object, ...]", fence: object) -> None:
        """A broken rule ends the run, not the commit's caller, which might survive the exception."""
        assert self._broken is not None, "the run has begun"
        try:
            self._rules.check(revision, events, fence)  # type: ignore[arg-type]  # as the store calls it
        except Violation as violation:
            if not self._broken.done():
                self._broken.set_exception(violation)

    async def _live(self) -> None:
        storm_ends = asyncio.get_running_loop().time() + STORM_S
        self._set_weather()
        while asyncio.get_running_loop().time() < storm_ends:
            await asyncio.sleep(self._chance.uniform(0.02, 1.5))
            await self._chance.choice(self._faults())()
            self._check_processes()
        await self._calm()
        await self._come_to_rest()
        await self._stay_idle()

    def _set_weather(self) -> None:
        weather = self._cluster.network.weather
        if self._chance.random() < 0.6:
            weather.lose, weather.double = self._chance.choice([0.0, 0.01, 0.05]), self._chance.choice([0.0, 0.05])
            weather.late = self._chance.choice([0.0, 0.05, 0.2])
        self._story.say(f"weather: {weather}")

    def _faults(self) -> list[Callable[[], Awaitable[None]]]:
        person = [self._apply, self._apply, self._scale, self._delete, self._drain]
        trouble = [self._crash_container, self._crash_container, self._kill_agent, self._kill_machine]
        return [
            *person,
            *person,
            *trouble,
            *trouble,
            self._cut,
            self._heal,
            self._kill_plane,
            self._lapse,
            self._compact,
        ]

    # What people do ---------------------------------------------------------------------------------------------------

    async def _apply(self) -> None:
        name = self._chance.choice(SERVICES)
        reservations = pb.ResourceReservations(memory=self._chance.choice([0, 2**26, 2**28]), cpu=100)
        resources = pb.Resources(reservations=reservations)
        container = pb.Container(image=self._chance.choice(IMAGES), resources=resources)
        if self._chance.random() < 0.3:
            container.ports.add(target=80, published=8000 + SERVICES.index(name), mode=pb.PUBLISH_MODE_HOST)
        spec = pb.ServiceSpec(template=pb.TaskTemplate(container=container), replicas=self._chance.randint(0, 5))
        if container.ports:
            spec.replicas = min(spec.replicas, 3)
        service = pb.Service(meta=pb.Meta(name=name, namespace="default"), spec=spec)
        request = api.ApplyRequest(objects=[kinds.wrap(service)])
        await self._ask(f"apply {name}", lambda plane: plane.writes.apply(request))

    async def _scale(self) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=self._chance.choice(SERVICES))
        request = api.ScaleRequest(reference=reference, replicas=self._chance.randint(0, 3))
        await self._ask(f"scale {reference.name} to {request.replicas}", lambda plane: plane.writes.scale(request))

    async def _delete(self) -> None:
        reference = api.ObjectReference(kind="service", namespace="default", name=self._chance.choice(SERVICES))
        request = api.DeleteRequest(reference=reference)
        await self._ask(f"delete {reference.name}", lambda plane: plane.writes.delete(request))

    async def _drain(self) -> None:
        choices = [pb.AVAILABILITY_ACTIVE, pb.AVAILABILITY_DRAIN, pb.AVAILABILITY_PAUSE]
        request = api.UpdateNodeRequest(node="n4", availability=self._chance.choice(choices))
        await self._ask(f"set node n4 to {request.availability}", lambda plane: plane.writes.update_node(request))

    async def _ask(self, what: str, call: Callable[..., Awaitable[object]]) -> None:
        planes = sorted(self._cluster.control_planes)
        if not planes:
            return
        self._story.say(f"person: {what}")
        try:
            async with asyncio.timeout(10):
                await call(self._cluster.control_planes[self._chance.choice(planes)])
        except* (request_errors.RequestError, errors.StoreError, TimeoutError) as refusals:
            self._story.say(f"person: {what} was refused: {running.leaf(refusals)}")

    # What goes wrong --------------------------------------------------------------------------------------------------

    async def _crash_container(self) -> None:
        agent = self._chance.choice(list(self._cluster.agents.values()))
        running = sorted(agent.machine.running())
        if running:
            victim = self._chance.choice(running)
            self._story.say(f"fault: container {victim} crashes")
            agent.machine.crash(victim, self._chance.choice([0, 1, 137]))

    async def _kill_agent(self) -> None:
        await self._restart_later(machine_too=False)

    async def _kill_machine(self) -> None:
        await self._restart_later(machine_too=True)

    async def _restart_later(self, *, machine_too: bool) -> None:
        agent = self._chance.choice(list(self._cluster.agents.values()))
        if agent.process is None:
            agent.start()
            return
        self._story.say(f"fault: {'machine' if machine_too else 'agent'} {agent.name} is killed")
        await agent.kill(machine_too=machine_too)

    async def _kill_plane(self) -> None:
        missing = [name for name in self._cluster.control_plane_names if name not in self._cluster.control_planes]
        if missing:
            self._story.say(f"control plane {missing[0]} starts")
            self._cluster.start_control_plane(missing[0])
            return
        victim = self._chance.choice(sorted(self._cluster.control_planes))
        self._story.say(f"fault: control plane {victim} is killed")
        await self._cluster.kill_control_plane(victim)

    async def _cut(self) -> None:
        names = [*self._cluster.control_plane_names, *self._cluster.agents]
        one = self._chance.choice(names)
        other = self._chance.choice(["store", *self._cluster.control_plane_names])
        if one == other:
            return
        self._story.say(f"fault: cut between {one} and {other}")
        self._cluster.network.cut(one, other)
        if self._chance.random() < 0.5:
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

    # How it ends ------------------------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Everything is put in order again; the cluster has to find back by itself."""
        network = self._cluster.network
        network.heal()
        network.weather.lose = network.weather.double = network.weather.late = 0.0
        for name in self._cluster.control_plane_names:
            if name not in self._cluster.control_planes:
                self._cluster.start_control_plane(name)
        for agent in self._cluster.agents.values():
            if agent.process is None:
                agent.start()
        self._story.say("calm: everything is healed")
        await asyncio.sleep(5)
        for node in ("n1", "n2", "n3", "n4"):
            request = api.UpdateNodeRequest(node=node, availability=pb.AVAILABILITY_ACTIVE)
            await self._ask(f"activate {node}", lambda plane, request=request: plane.writes.update_node(request))

    async def _come_to_rest(self) -> None:
        deadline = asyncio.get_running_loop().time() + REST_S
        problems = ["it has not been looked at"]
        while problems and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(2)
            self._check_processes()
            problems = unrest(self._rules, self._running())
        if problems:
            raise Violation(f"{REST_S:g} s after the last fault: " + "; ".join(problems))

    async def _stay_idle(self) -> None:
        await asyncio.sleep(10)
        before = self._rules.commits
        await asyncio.sleep(IDLE_S)
        if self._rules.commits != before:
            raise Violation(f"an idle cluster wrote {self._rules.commits - before} times within {IDLE_S:g} s")
        problems = unrest(self._rules, self._running())
        if problems:
            raise Violation("at rest, and then not any more: " + "; ".join(problems))

    def _running(self) -> dict[str, frozenset[str]]:
        return {f"id-{agent.name}": frozenset(agent.machine.running()) for agent in self._cluster.agents.values()}

    def _check_processes(self) -> None:
        if asyncio.get_running_loop().time() > LONGEST_S:
            raise Violation(f"the run is not over after {LONGEST_S:g} s")
        for name, failure in self._cluster.failures():
            raise Violation(f"{name} ended by an error of its own: {failure!r}") from failure

    async def _stop_everything(self) -> None:
        for agent in self._cluster.agents.values():
            await agent.kill(machine_too=False)
        for name in list(self._cluster.control_planes):
            await self._cluster.kill_control_plane(name)


def story_of_trouble(result: Result) -> str:
    """What to show of a failed run: the rule, the story of the tasks that it names, and how to see it again."""
    words = {word.strip(".,:;") for word in result.failure.split()}
    named = sorted(word for word in words if "-" in word and result.story.about(word))
    told = [line for word in named[:3] for line in (f"--- {word}", *result.story.about(word)[-40:])]
    return "\n".join(
        [
            f"seed {result.seed}: {result.failure}",
            *told,
            f"--- the last lines of {len(result.story.lines)}",
            *result.story.lines[-60:],
            f"again: make sim SEED={result.seed}",
        ]
    )


def terminal(task: pb.Task) -> bool:
    return states.is_terminal(task.status.state)

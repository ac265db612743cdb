"""One run: a cluster, a person who keeps changing things, faults drawn from the seed, then rest.

0 s ─── faults and changes ─── `STORM_S` ─── everything mended ─── at rest within `REST_S` ─── idle for `IDLE_S`
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from controlplane.core import scheduler
from controlplane.store import api, memory, typed
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import absence_rules, evenness, families, stocks
from tests.sim.cluster import Cluster
from tests.sim.crowds import waits_in_vain
from tests.sim.disruption_rules import drain_troubles
from tests.sim.net import End
from tests.sim.people import FENCED, FENCED_BESIDE_OTHERS, People, too_greedy
from tests.sim.processes import IMAGES, MISSING_IMAGE, images
from tests.sim.rest import unrest
from tests.sim.rules import Rules
from tests.sim.story import Story
from tests.sim.trouble import Trouble
from tests.sim.violation import Violation
from tests.support import virtualtime

GIVEN_UP = 0.2
"""How often a person gives up a node that the brake holds, each time that they look."""
STORM_S = 40.0
REST_S = 240.0
IDLE_S = 20.0
DRAIN_MS, DRAIN_S = 10_000, 40.0
"""The deadline of the drain at the end, and after which time its tasks have to be gone: stopping takes a while."""
SIDECARS_S = 20.0
"""How much longer a task may need whose sidecars do not end by themselves: each gets its time after the one before."""
SLOW_MOVES, MINUTE_S = 5, 65.0
"""How often a minute is waited for in which nothing is moved."""
LONGEST_S = 2 * (STORM_S + REST_S + IDLE_S) + SLOW_MOVES * MINUTE_S + evenness.WITHIN_S
LOOK_EVERY_S = 1.0
ABSENCE_MS, LATE_MS, LATE_S = 30_000, 10_000, 18.0
"""What the two that end in order in calm announce, and after which time the second one has to be lost."""
UPDATES, CRASHES, SECOND_THOUGHTS = 8, 0.3, 0.5
"""How many updates people make in calm, how often a container crashes after one, and how often people want it done in
another way."""
ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a run went. `rule` names the one that was broken, and `failure` says how; both are empty when all held."""

    seed: int
    rule: str
    failure: str
    story: Story
    commits: int
    virtual_s: float


def simulate(seed: int) -> Result:
    """Runs one seed. The same seed always gives the same result."""
    chance = random.Random(seed)
    story = Story()
    strategy = families.strategy_of(seed, chance)
    rules = Rules(story, spreads=strategy is scheduler.Strategy.SPREAD)
    rule, failure, virtual_s = "", "", 0.0
    try:
        with _log_of_errors() as logged:
            run = _Run(chance, story, rules, logged, seed, strategy)
            virtual_s = virtualtime.run(run.go(), chance)
    except* Violation as broken:
        first = _first(broken)
        rule, failure = first.rule, str(first)
    except* virtualtime.Stuck as stuck:
        rule, failure = "life goes on", str(stuck.exceptions[0])
    return Result(seed=seed, rule=rule, failure=failure, story=story, commits=rules.commits, virtual_s=virtual_s)


def _first(group: BaseExceptionGroup[Violation]) -> Violation:
    first = group.exceptions[0]
    return first if isinstance(first, Violation) else _first(first)


@contextlib.contextmanager
def _log_of_errors() -> Iterator[list[str]]:
    """What the programs log as errors; everything below that the story tells better."""
    logged: list[str] = []

    def keep(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        logged.append(", ".join(f"{key}={value}" for key, value in event.items()))
        raise structlog.DropEvent

    before = structlog.get_config()
    processors: list[Any] = [structlog.processors.format_exc_info, keep]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), processors=processors)
    try:
        yield logged
    finally:
        structlog.configure(**before)


class _Run:
    def __init__(
        self,
        chance: random.Random,
        story: Story,
        rules: Rules,
        logged: Sequence[str],
        seed: int,
        strategy: scheduler.Strategy,
    ) -> None:
        self._chance = chance
        self._story = story
        self._rules = rules
        self._logged = logged
        self._strategy = strategy
        self._fences = seed >= families.FENCED_FROM
        self._stocked = seed >= families.STOCKED_FROM
        self._orderly = seed >= families.ORDERLY_FROM
        self._particular = seed >= families.PARTICULAR_FROM
        self._store = memory.MemoryStore(on_commit=self._on_commit, history_limit=400)
        self._broken: asyncio.Future[None] | None = None
        self._cluster: Cluster
        self._people: People
        self._trouble: Trouble

    async def go(self) -> float:
        """The whole run; the virtual time that it took. Raises Violation."""
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        async with asyncio.TaskGroup() as group:
            planes = self._chance.choice([1, 3])
            self._cluster = Cluster(
                self._chance,
                group,
                self._store,
                self,
                planes=planes,
                nodes=4,
                stocked=self._stocked,
                orderly=self._orderly,
                strategy=self._strategy,
            )
            await self._store.commit([typed.put(one) for one in images()])
            self._people = People(
                self._cluster, self._chance, self._story, fenced=self._fenced(), particular=self._particular
            )
            self._trouble = Trouble(self._cluster, self._store, self._chance, group, self._story)
            try:
                await self._until_it_ends(group)
            finally:
                virtualtime.running_loop().thaw_all()  # else what is frozen could not be cancelled
        return loop.time()

    def _fenced(self) -> Collection[str]:
        if self._particular:
            return FENCED_BESIDE_OTHERS
        return FENCED if self._fences else ()

    async def _until_it_ends(self, group: asyncio.TaskGroup) -> None:
        assert self._broken is not None, "the run has begun"
        story, watch = group.create_task(self._live()), group.create_task(self._watch())
        await asyncio.wait([story, watch, self._broken], return_when=asyncio.FIRST_COMPLETED)
        if self._broken.done():
            self._broken.result()
        await story
        watch.cancel()
        await self._stop_everything()

    def _on_commit(self, revision: int, events: Sequence[api.Event], fence: api.Fence | None) -> None:
        """A broken rule ends the run, not the commit's caller, which might survive the exception."""
        for plane in self._cluster.control_planes.values():
            self._rules.disruption.note_clock(plane.skew_ms)
            self._rules.absences.note_clock(plane.skew_ms)
        self._hold(lambda: self._rules.check(revision, events, fence))

    def _hold(self, check: Callable[[], None]) -> None:
        assert self._broken is not None, "the run has begun"
        try:
            check()
        except Violation as violation:
            if not self._broken.done():
                self._broken.set_exception(violation)

    def sent(self, end: End, message: object) -> None:
        """A process says something. A broken rule ends the run, not the process."""
        self._hold(lambda: self._rules.network.sent(end, message))

    def arrived(self, end: End, message: object) -> None:
        """A process can hear something."""
        self._hold(lambda: self._rules.network.arrived(end, message))

    async def _live(self) -> None:
        storm_ends = asyncio.get_running_loop().time() + STORM_S
        self._trouble.set_weather()
        while asyncio.get_running_loop().time() < storm_ends:
            await asyncio.sleep(self._chance.uniform(0.02, 1.5))
            acts = self._people.wishes() if self._chance.random() < 0.5 else self._trouble.faults()
            await self._chance.choice(acts)()
            await self._give_up_what_is_held()
        self._trouble.mend_everything()
        await self._put_right()
        self._trouble.end_weather()
        await self._come_to_rest()
        if self._particular:
            await self._update_in_calm()
            await self._put_right()
            await self._come_to_rest()
        if self._orderly:
            await self._restart_an_agent()
            await self._come_to_rest()
            await self._wait_for_a_late_one()
            await self._come_to_rest()
        await self._maintain_a_node()
        await self._come_to_rest()
        await self._stay_idle()

    async def _give_up_what_is_held(self) -> None:
        """Somebody sees that the brake holds nodes, and may not wait for them."""
        held = sorted(node.meta.name for node in self._rules.nodes() if node.status.held)
        if held and self._chance.random() < GIVEN_UP:
            await self._people.give_up(self._chance.choice(held))

    async def _watch(self) -> None:
        """Looks at the machines and the processes all the time."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S / 10 if self._fences else LOOK_EVERY_S)
            self._check_processes()
            stocks.check(self._cluster.dispatchers(), self._cluster.node_ids())
            self._rules.watch_machines(
                self._cluster.running(),
                in_order=self._cluster.in_order(),
                now_s=asyncio.get_running_loop().time(),
            )
            self._rules.check_crowds(self._cluster.machines())
            self._rules.check_stops(self._cluster.stops())
            self._rules.check_ready(self._cluster.answered_well)

    # How it ends ------------------------------------------------------------------------------------------------------

    async def _put_right(self) -> None:
        """What people asked for can be had, from now on."""
        await asyncio.sleep(5)
        for name in self._cluster.agents:
            await self._insist(lambda name=name: self._people.activate(name))
        for service in self._rules.services():
            await self._make_content(service)
        await self._wait_for_nobody()

    async def _make_content(self, service: pb.Service) -> None:
        """It wants what there is."""
        is_wrong = service.spec.template.container.image == MISSING_IMAGE
        is_greedy = too_greedy(service, self._rules.templates_of(service))
        if (is_wrong or is_greedy) and not service.meta.deleted_at:
            spec = pb.ServiceSpec()
            spec.CopyFrom(service.spec)
            spec.template.container.image = IMAGES[0] if is_wrong else service.spec.template.container.image
            spec.replicas = 1 if is_greedy else service.spec.replicas
            await self._insist(lambda: self._people.apply(service.meta.name, spec))

    async def _wait_for_nobody(self) -> None:
        """Who waits for what will not be there waits no longer; what is for a while goes by itself."""
        for service in self._rules.services():
            if not service.meta.deleted_at and waits_in_vain(service, self._rules.services()):
                spec = pb.ServiceSpec()
                spec.CopyFrom(service.spec)
                spec.depends_on.clear()
                spec.template.placement.ClearField("near")
                await self._insist(lambda name=service.meta.name, spec=spec: self._people.apply(name, spec))

    async def _insist(self, ask: Any) -> None:
        for _ in range(ATTEMPTS):
            if await ask():
                return
            await asyncio.sleep(1)
        raise Violation("people are heard", f"{ATTEMPTS} requests in a row were refused in a healthy cluster")

    async def _come_to_rest(self) -> None:
        deadline = asyncio.get_running_loop().time() + REST_S
        problems = ["it has not been looked at"]
        while problems and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(2)
            for service in self._rules.services():
                await self._people.let_go_on(service)
                await self._make_content(service)  # what it has gone back to may want more
            problems = unrest(self._rules, self._cluster.running(), self._cluster.records())
        if problems:
            raise Violation("whole at rest", f"{REST_S:g} s after the last fault: " + "; ".join(problems))

    async def _update_in_calm(self) -> None:
        """In the storm hardly an update gets far. Now each does, or another comes before it is through."""
        for name in self._people.chosen(UPDATES):
            await self._insist(lambda name=name: self._people.update(name))
            await asyncio.sleep(self._chance.choice([0.5, 3.0, 10.0]))
            if self._chance.random() < CRASHES:
                await self._trouble.crash_container()
            service = next((one for one in self._rules.services() if one.meta.name == name), None)
            if service is not None and self._chance.random() < SECOND_THOUGHTS:
                await self._people.update_otherwise(service)

    async def _maintain_a_node(self) -> None:
        """In good order: one is drained, looked after, and takes tasks again."""
        await self._insist(lambda: self._people.apply(evenness.PLAIN, evenness.plain(IMAGES[0])))
        name = self._chance.choice(sorted(self._cluster.agents))
        deadline_ms = self._chance.choice([None, DRAIN_MS])
        await self._insist(lambda: self._people.drain(name, deadline_ms))
        await asyncio.sleep(DRAIN_S)
        if self._drain_troubles(name, deadline_ms):
            await asyncio.sleep(SIDECARS_S)
        problems = self._drain_troubles(name, deadline_ms)
        if problems:
            raise Violation("drains end", "; ".join(problems))
        await self._insist(lambda: self._people.activate(name))

    def _drain_troubles(self, name: str, deadline_ms: int | None) -> list[str]:
        must_be_empty = deadline_ms is not None
        return drain_troubles(self._rules.nodes(), self._rules.tasks(), name, must_be_empty=must_be_empty)

    async def _restart_an_agent(self) -> None:
        """It is back in its time, long after it would have been lost, and nobody has taken its tasks."""
        agent = self._cluster.agents[self._chance.choice(sorted(self._cluster.agents))]
        before = absence_rules.alive(self._rules.tasks(), agent.node_id)
        await agent.end_in_order(ABSENCE_MS)
        await asyncio.sleep(self._chance.uniform(6.0, ABSENCE_MS / 1000 - 4))
        if given_up := absence_rules.taken(self._rules.tasks(), before):
            text = f"{', '.join(given_up)} were given up while the agent of {agent.name} was restarted"
            raise Violation(absence_rules.WAITED, text)
        agent.start()

    async def _wait_for_a_late_one(self) -> None:
        """It does not come back in its time, and its tasks are given up like those of any lost node."""
        agent = self._cluster.agents[self._chance.choice(sorted(self._cluster.agents))]
        await agent.end_in_order(LATE_MS)
        await asyncio.sleep(LATE_S)
        left = absence_rules.alive(self._rules.tasks(), agent.node_id)
        is_down = any(
            node.meta.id == agent.node_id and node.status.state == pb.NODE_STATE_DOWN for node in self._rules.nodes()
        )
        if left or not is_down:
            what = f"{', '.join(sorted(left))} are not given up" if left else f"{agent.name} is not down"
            raise Violation(absence_rules.LATE, f"{what} {LATE_S:g} s after {agent.name} went for {LATE_MS} ms")
        agent.start()

    async def _stay_idle(self) -> None:
        await asyncio.sleep(10)
        if self._particular:
            await self._wait_for_slow_moves()
        await evenness.reached(self._rules, self._cluster)
        before = self._rules.commits
        await asyncio.sleep(IDLE_S)
        if self._rules.commits != before:
            written = self._rules.commits - before
            raise Violation("idle is idle", f"{written} changes within {IDLE_S:g} s in which nothing happened")
        problems = unrest(self._rules, self._cluster.running(), self._cluster.records())
        if problems:
            raise Violation("whole at rest", "at rest, and then not any more: " + "; ".join(problems))

    async def _wait_for_slow_moves(self) -> None:
        """Of a service that allows one in a minute the last one may come minutes later."""
        for _ in range(SLOW_MOVES):
            before = self._rules.commits
            await asyncio.sleep(MINUTE_S)
            if self._rules.commits == before:
                return

    def _check_processes(self) -> None:
        if asyncio.get_running_loop().time() > LONGEST_S:
            raise Violation("life goes on", f"the run is not over after {LONGEST_S:g} s")
        for name, failure in self._cluster.failures():
            raise Violation("no process fails", f"{name} ended by an error of its own: {failure!r}") from failure
        if self._logged:
            raise Violation("no error is logged", self._logged[0])

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

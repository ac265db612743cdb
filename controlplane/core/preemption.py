"""Makes room for a task by asking tasks of a lower priority to stop: on the node where the fewest have to.

Three rules. Nobody is stopped when that would not make room, and no service loses more than its `disruption` allows,
or more than one at a time when it has none. A task for which others have been stopped keeps the room: until they have
ended it is booked there, so that nobody of a lower priority slips in between. And what ends already is waited for
before anybody else is stopped. So there is an end to it: each victim has a lower priority than whoever took its place.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controlplane.core import ask as asking
from controlplane.core import demand as demands
from controlplane.core import disruption, fewest, filters, plan, tasks
from controlplane.core import fleet as fleets
from controlplane.core.ask import Ask
from protos import states
from protos.orch.v1 import objects_pb2 as pb

MOST_AT_ONCE = 64
"""Tasks that others are stopped for in one pass; when the victims have ended, the next ones follow."""
REASON = "Preempted"
"""Why a victim ended, whatever its agent says of its end."""
MOST_WAYS = 100
"""Nodes that are compared for one task; in a larger cluster the fewest victims are the fewest among so many nodes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """A task on a node, and what is asked about it again and again while ways are compared."""

    task: pb.Task
    id: str
    key: asking.ServiceKey
    priority: int
    created_at: int
    live: bool
    ready: bool
    demand: demands.Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a task will find room, which tasks have to stop for it, and which end already."""

    row: int
    victims: Sequence[Held]
    ending: Sequence[Held]


class Preemption:
    """For one pass of the scheduler. `placed`: every task that has a node."""

    def __init__(
        self,
        fleet: fleets.Fleet,
        placed: Collection[pb.Task],
        templates: Mapping[str, pb.TaskTemplate],
        services: Mapping[asking.ServiceKey, pb.Service],
    ) -> None:
        self._fleet, self._services = fleet, services
        self._templates = templates
        self._demands: dict[str, demands.Demand] = {}
        self._on: dict[int, list[Held]] = {}
        self._members: dict[asking.ServiceKey, list[pb.Task]] = {}
        for task in placed:
            row = fleet.row_of.get(task.node_id)
            if row is not None and not states.is_terminal(task.status.state):
                held = self._held(task)
                self._on.setdefault(row, []).append(held)
                self._members.setdefault(held.key, []).append(task)
        self._lowest = min(map(self._priority, self._members), default=0)
        self._gone: set[str] = set()
        self._budgets: dict[asking.ServiceKey, int] = {}
        self._owed: dict[int, Counter[str]] = {}
        self._promised: dict[int, set[demands.HostPort]] = {}
        self._made = 0
        self._asked: Ask | None = None
        self._eligible = filters.everywhere(fleet)
        self._open: fleets.Mask | None = None
        self._ways: dict[int, Way | None] = {}
        self._spared: set[asking.ServiceKey] = set()

    def may_help(self, ask: Ask) -> bool:
        """Whether anybody has a lower priority."""
        return ask.priority > self._lowest

    def make_way(self, ask: Ask, only_row: int | None = None) -> Way | None:
        """The way that takes the fewest tasks, which is booked; then that of the lowest priority, then the youngest."""
        mask = self._open_to(ask)
        rows = np.flatnonzero(mask).tolist() if only_row is None else [only_row] if mask[only_row] else []
        ways = (way for row in rows if (way := self._known_way(row, ask)) is not None)
        best = min(itertools.islice(ways, MOST_WAYS), key=self._cost, default=None)
        if best is not None:
            self._book(best, ask)
        return best

    def spared(self, ask: Ask) -> Sequence[str]:
        """After `make_way` has found none: the services that would have made way, if they could miss more tasks now."""
        if ask is not self._asked:
            return ()
        return sorted(name if namespace == ask.namespace else f"{namespace}/{name}" for namespace, name in self._spared)

    def _open_to(self, ask: Ask) -> fleets.Mask:
        """The nodes that lack nothing but room. Only what is booked here changes that while a group is looked at."""
        if ask is not self._asked:
            self._asked, self._eligible, self._open = ask, filters.eligible(self._fleet, ask), None
            self._ways, self._spared = {}, set()
        if self._open is None:
            self._open = self._eligible.copy()
            for one in filters.MOVING:
                self._open &= one.passes(self._fleet, ask)
        return self._open

    def _known_way(self, row: int, ask: Ask) -> Way | None:
        """The way on a node, looked for once a group. What is booked on others takes it away, and never opens one."""
        if row not in self._ways or not self._stands(self._ways[row]):
            self._ways[row] = self._way(row, ask)
        return self._ways[row]

    def _stands(self, way: Way | None) -> bool:
        """Whether its victims may still be stopped, after others have been elsewhere."""
        if way is None or not way.victims:
            return True
        return self._made < MOST_AT_ONCE and self._within_budgets(way.victims)

    def _cost(self, way: Way) -> tuple[int, int, int, int]:
        highest = max((one.priority for one in way.victims), default=0)
        oldest = min((one.created_at for one in way.victims), default=0)
        return len(way.victims), highest, -oldest, way.row

    def _priority(self, key: asking.ServiceKey) -> int:
        service = self._services.get(key)
        return service.spec.priority if service is not None else 0

    # One node ---------------------------------------------------------------------------------------------------------

    def _way(self, row: int, ask: Ask) -> Way | None:
        here = self._on.get(row, [])
        ending = [one for one in here if not one.live or one.id in self._gone]
        ending.sort(key=_order)
        if self._fits(row, ask, ending):
            awaited = fewest.find(
                ending,
                ending,
                kind_of=_kind,
                may_do=self._may_do(row, ask, (), ending),
                is_enough=lambda chosen: self._fits(row, ask, chosen),
            )
            return Way(row=row, victims=(), ending=awaited or ())
        if self._made >= MOST_AT_ONCE:
            return None
        lower = [one for one in here if self._may_go(one, ask)]
        if not self._fits(row, ask, [*ending, *lower]):
            return None
        lower.sort(key=_order)

        def is_enough(chosen: Sequence[Held]) -> bool:
            return self._within_budgets(chosen) and self._fits(row, ask, [*ending, *chosen])

        victims = fewest.find(
            lower,
            self._affordable(lower),
            kind_of=_kind,
            may_do=self._may_do(row, ask, ending, lower),
            is_enough=is_enough,
        )
        if victims is None:
            ready = Counter(one.key for one in lower if one.ready)
            self._spared |= {key for key, count in ready.items() if count > self._budget(key)}
            return None
        return Way(row=row, victims=victims, ending=ending)

    def _may_go(self, held: Held, ask: Ask) -> bool:
        return held.live and held.id not in self._gone and held.priority < ask.priority

    def _may_do(self, row: int, ask: Ask, ending: Sequence[Held], pool: Sequence[Held]) -> Callable[[int], bool]:
        """Whether so many of the pool could be enough: if not even those with most of each thing are, no others are."""
        fleet = self._fleet
        back, pooled = [one.demand for one in ending], [one.demand for one in pool]
        needs = (
            (ask.demand.cpu, fleet.free_cpu[row], [one.cpu for one in back], [one.cpu for one in pooled]),
            (ask.demand.memory, fleet.free_memory[row], [one.memory for one in back], [one.memory for one in pooled]),
            (ask.demand.pids, fleet.free_pids[row], [one.pids for one in back], [one.pids for one in pooled]),
            (ask.demand.disk, fleet.free_disk[row], [one.disk for one in back], [one.disk for one in pooled]),
        )
        missing = [
            (needed - int(free) - sum(returned), sorted(amounts, reverse=True))
            for needed, free, returned, amounts in needs
            if needed
        ]
        places = int(fleet.free_tasks[row]) + len(ending)
        return lambda size: places + size > 0 and all(sum(most[:size]) >= lacking for lacking, most in missing)

    def _affordable(self, lower: Sequence[Held]) -> Sequence[Held]:
        """As many of them in order as their services may lose together."""
        taken, chosen = Counter[asking.ServiceKey](), list[Held]()
        for one in lower:
            if not one.ready or taken[one.key] < self._budget(one.key):
                taken[one.key] += one.ready
                chosen.append(one)
        return chosen

    def _fits(self, row: int, ask: Ask, returned: Sequence[Held]) -> bool:
        """Whether the node has room once these tasks have ended."""
        fleet, demand = self._fleet, ask.demand
        back = [one.demand for one in returned]
        enough = (
            fleet.free_tasks[row] + len(back) > 0
            and _is_enough(int(fleet.free_cpu[row]) + sum(one.cpu for one in back), demand.cpu)
            and _is_enough(int(fleet.free_memory[row]) + sum(one.memory for one in back), demand.memory)
            and _is_enough(int(fleet.free_pids[row]) + sum(one.pids for one in back), demand.pids)
            and _is_enough(int(fleet.free_disk[row]) + sum(one.disk for one in back), demand.disk)
        )
        return bool(enough) and self._has_generic(row, ask, returned) and self._has_rest(row, ask, returned)

    def _has_generic(self, row: int, ask: Ask, returned: Sequence[Held]) -> bool:
        free, owed = self._fleet.generic[row], self._owed.get(row, Counter())
        return all(
            len(free.get(name, ()))
            - owed[name]
            + sum(len(one.task.granted[name].ids) for one in returned if name in one.task.granted)
            >= count
            for name, count in ask.demand.generic.items()
        )

    def _has_rest(self, row: int, ask: Ask, returned: Sequence[Held]) -> bool:
        """Its ports are free, and the node has not too many of its own kind."""
        taken = self._fleet.holders(row, ask.demand.ports).keys()
        freed = {port for one in returned for port in one.demand.ports} - self._promised.get(row, set())
        if not taken <= freed or any(port in self._fleet.everywhere for port in taken):
            return False
        mine = sum(one.key == ask.key for one in returned)
        return not ask.max_per_node or self._fleet.neighbours(ask.key).present[row] - mine < ask.max_per_node

    # Booking ----------------------------------------------------------------------------------------------------------

    def _book(self, way: Way, ask: Ask) -> None:
        self._made += bool(way.victims)
        self._open = None
        self._ways.pop(way.row, None)
        for one in way.victims:
            self._gone.add(one.id)
            if one.ready:
                self._budgets[one.key] = self._budget(one.key) - 1
        self._fleet.promise(way.row, ask)
        self._promised.setdefault(way.row, set()).update(ask.demand.ports)
        for name, count in ask.demand.generic.items():
            free = self._fleet.generic[way.row].get(name, [])
            self._fleet.generic[way.row][name] = free[count:]
            self._owed.setdefault(way.row, Counter())[name] += max(0, count - len(free))

    def _within_budgets(self, chosen: Sequence[Held]) -> bool:
        taken = Counter(one.key for one in chosen if one.ready)
        return all(count <= self._budget(key) for key, count in taken.items())

    def _budget(self, key: asking.ServiceKey) -> int:
        if key not in self._budgets:
            self._budgets[key] = disruption.may_make_way(self._services.get(key), self._members[key])
        return self._budgets[key]

    def _held(self, task: pb.Task) -> Held:
        meta, revision_id = task.meta, task.revision_id
        key = meta.namespace, task.service
        demand = self._demands.get(revision_id)
        if demand is None:
            demand = self._demands[revision_id] = demands.of(self._templates.get(revision_id, pb.TaskTemplate()))
        return Held(
            task=task,
            id=meta.id,
            key=key,
            priority=self._priority(key),
            created_at=meta.created_at,
            live=tasks.is_live(task),
            ready=tasks.is_ready(task),
            demand=demand,
        )


def stops(way: Way, task: pb.Task, now_ms: int) -> Iterator[plan.Write]:
    """The changes that ask the victims to stop."""
    why = f"makes way for task {task.meta.name}, which has a higher priority"
    for victim in way.victims:
        stop = tasks.stop(victim.task, pb.DESIRED_STATE_SHUTDOWN, why, now_ms)
        if stop is not None:
            assert isinstance(stop.value, pb.Task), "a stopped task is a task"
            stop.value.status.reason, stop.value.status.message = REASON, why
            yield stop


def _is_enough(free: int, needed: int) -> bool:
    return free >= needed or not needed


def _order(held: Held) -> tuple[int, int, str]:
    """Who goes first."""
    return held.priority, -held.created_at, held.id


def _kind(held: Held) -> tuple[object, ...]:
    """What decides what its end brings and takes."""
    task = held.task
    granted = frozenset((name, len(one.ids)) for name, one in task.granted.items()) if task.granted else None
    return task.revision_id, *held.key, held.ready, granted

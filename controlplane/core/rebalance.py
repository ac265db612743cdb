"""Which tasks are moved so that a service is spread again: after a node has come, or many replicas have gone.

Two rules. A task is moved only to where the scheduler would put it now, and only when it comes from a node with at
least two more tasks of its service: then one move makes the sum of the squares of these numbers smaller, so that there
is an end to it, and nothing is moved back. And it is done gently: one task of a service at a time, of a service in
which everything is as asked, with the new task ready before the old one stops.

Example: web has 3 tasks on n1, 3 on n2, and n3 has come back → one moves from n1 to n3 (9 + 9 + 0 → 4 + 9 + 1), then
one from n2 (4 + 4 + 4), and that is all.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.core import ask as asking
from controlplane.core import choosing, fleet, leaving, places, plan, rollout, scheduler, slots, tasks
from protos.orch.v1 import objects_pb2 as pb

MINUTE_MS = 60_000
FRESH_MS = 10_000
"""A node that has been back for less may be gone again in a moment."""
ASKED_MS = 600_000
"""So long a person's wish to have a service spread now is heeded."""
MOST_FORESEEN = 500
WORTH_IT = 2
"""So many more tasks of the service the node has that loses one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that there is."""

    nodes: Collection[pb.Node]
    tasks: Collection[pb.Task]
    revisions: Mapping[str, pb.Revision]
    """By id."""
    rules: scheduler.Rules
    per_minute: int
    """How many tasks may be moved within a minute."""
    now_ms: int
    patient: bool = True
    """Whether nodes that have just come are watched first."""

    def is_asked_for(self, service: pb.Service) -> bool:
        """Whether somebody wants it spread now."""
        return service.spec.rebalance_asked_at + ASKED_MS > self.now_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A task that is to go to another node, and why."""

    service: pb.Service
    task: pb.Task
    source: pb.Node
    target: pb.Node
    why: str


def decide(situation: Situation, suffixes: Iterator[str]) -> plan.Plan:
    """Makes second tasks in the slots of those that move. `suffixes`: random parts of their names."""
    wanted, later = moves(situation)
    asked = [move for move in wanted if situation.is_asked_for(move.service)]
    chosen, in_a_while = _within_limits(
        [move for move in wanted if not situation.is_asked_for(move.service)], situation
    )
    changes = tuple(_make(move, situation, next(suffixes)) for move in (*asked, *chosen))
    return plan.Plan(changes=changes, wake_at=plan.earliest([later, in_a_while]))


def _within_limits(wanted: Sequence[Move], situation: Situation) -> tuple[list[Move], int | None]:
    """Those that may be made now, and when the first of the others may be.

    What left a node that is drained counts among the moves of the last minute: it costs a service as much.
    """
    since = situation.now_ms - MINUTE_MS
    moved = [task for task in situation.tasks if task.replaces and task.meta.created_at > since]
    everywhere = [task.meta.created_at for task in moved]
    chosen: list[Move] = []
    again: list[int] = []
    for move in wanted:
        policy, key = move.service.spec.rebalance, _service_of(move.task)
        mine = [task.meta.created_at for task in moved if _service_of(task) == key]
        if policy.max_moves_per_minute and len(mine) >= policy.max_moves_per_minute:
            again.append(min(mine) + MINUTE_MS)
        elif len(everywhere) + len(chosen) < situation.per_minute:
            chosen.append(move)
        elif everywhere:
            again.append(min(everywhere) + MINUTE_MS)
    return chosen, plan.earliest(again)


def _service_of(task: pb.Task) -> asking.ServiceKey:
    return task.meta.namespace, task.service


def foresee(situation: Situation) -> list[Move]:
    """All moves until nothing more is to be gained, as if each were made at once."""
    found: list[Move] = []
    while len(found) < MOST_FORESEEN and (wanted := moves(situation)[0]):
        found += wanted
        homes = {move.task.meta.id: move.target.meta.id for move in wanted}
        there = [_at(task, homes.get(task.meta.id, task.node_id)) for task in situation.tasks]
        situation = replace(situation, tasks=there)
    return found


def _at(task: pb.Task, node_id: str) -> pb.Task:
    if task.node_id == node_id:
        return task
    moved = plan.copy(task)
    moved.node_id = node_id
    return moved


def moves(situation: Situation) -> tuple[list[Move], int | None]:
    """What would make it better now, one task of a service at most; and when nodes stop being fresh."""
    if situation.rules.strategy is not scheduler.Strategy.SPREAD:
        return [], None
    uneven = list(_uneven(situation))
    if not uneven:
        return [], None
    look = _Look(situation)
    found = [move for service, members in uneven if (move := look.best(service, members)) is not None]
    return found, look.later


def _uneven(situation: Situation) -> Iterator[tuple[pb.Service, list[pb.Task]]]:
    """Services in good order that have many tasks on one node and few on another; cheap to ask."""
    members: dict[asking.ServiceKey, list[pb.Task]] = {}
    for task in situation.tasks:
        members.setdefault(_service_of(task), []).append(task)
    able = [node.meta.id for node in situation.nodes if _takes_part(node)]
    for key, service in sorted(situation.rules.services.items()):
        if not _may_move(service) or not (situation.per_minute or situation.is_asked_for(service)):
            continue
        counts = Counter(task.node_id for task in members.get(key, ()) if tasks.is_live(task))
        numbers = [counts[node_id] for node_id in able]
        if numbers and max(numbers) - min(numbers) >= WORTH_IT:
            yield service, members.get(key, [])


def _may_move(service: pb.Service) -> bool:
    status, spec = service.status, service.spec
    in_order = status.settled and status.observed_generation == service.meta.generation
    return (
        in_order
        and not service.meta.deleted_at
        and spec.mode != pb.SERVICE_MODE_GLOBAL
        and spec.rebalance.mode != pb.REBALANCE_MODE_OFF
        and leaving.starts_first(service)
        and status.rollout.state == rollout.COMPLETED
    )


def _takes_part(node: pb.Node) -> bool:
    active = node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE}
    return active and node.status.state == pb.NODE_STATE_READY


class _Look:
    """One look at the whole cluster; where one task is to go, the next finds it."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        placed = [task for task in situation.tasks if task.node_id]
        templates = {one.meta.id: one.template for one in situation.revisions.values()}
        self._ships = fleet.survey(situation.nodes, placed, templates, situation.rules.everywhere)
        self._failures = scheduler.failures_on(self._ships, placed)
        self.later: int | None = None

    def best(self, service: pb.Service, members: Sequence[pb.Task]) -> Move | None:
        """From where it has most to where the scheduler would put one more."""
        counts = Counter(row for task in members if tasks.is_live(task) and (row := self._row(task)) is not None)
        going = [task for task in members if self._may_go(task, members)]
        task = max(going, key=lambda one: (counts[self._ships.row_of[one.node_id]], one.slot), default=None)
        revision = self._situation.revisions.get(task.revision_id) if task is not None else None
        if task is None or revision is None:
            return None
        ask = asking.read(task, revision.template, service.spec.priority)
        failures = self._failures.get(ask.revision_id, Counter())
        ranking = choosing.Chooser(self._ships, ask, failures, self._situation.rules.strategy).ranking()
        source = self._ships.row_of[task.node_id]
        if not ranking or counts[source] - counts[ranking[0]] < WORTH_IT:
            return None
        if self._situation.patient and not self._situation.is_asked_for(service) and self._is_fresh(ranking[0]):
            return None
        self._ships.take(ranking[0], ask.demand, fleet.holder(task))
        self._ships.settle(ranking[0], ask)
        return self._move(service, task, (source, ranking[0]), counts)

    def _move(self, service: pb.Service, task: pb.Task, rows: tuple[int, int], counts: Mapping[int, int]) -> Move:
        source, target = (self._ships.nodes[row] for row in rows)
        why = (
            f"moves from {source.meta.name}, which has {counts[rows[0]]} tasks of {service.meta.name}, "
            f"to {target.meta.name}, which has {counts[rows[1]]}"
        )
        return Move(service=service, task=task, source=source, target=target, why=why)

    def _row(self, task: pb.Task) -> int | None:
        return self._ships.row_of.get(task.node_id)

    def _may_go(self, task: pb.Task, members: Collection[pb.Task]) -> bool:
        """It works where tasks come and go, and was not tried to be moved in vain."""
        row = self._row(task)
        in_vain = any(other.replaces == task.meta.id for other in members)
        return row is not None and tasks.is_ready(task) and not in_vain and _takes_part(self._ships.nodes[row])

    def _is_fresh(self, row: int) -> bool:
        until = self._ships.nodes[row].status.since + FRESH_MS
        if until <= self._situation.now_ms:
            return False
        self.later = plan.earliest([self.later, until])
        return True


def _make(move: Move, situation: Situation, suffix: str) -> plan.Write:
    task, revision = move.task, situation.revisions[move.task.revision_id]
    place = places.Place(number=task.slot, word=str(task.slot))
    mine = [
        one
        for one in situation.tasks
        if (one.meta.namespace, one.service, one.slot) == (task.meta.namespace, task.service, task.slot)
    ]
    slot = slots.sort_out(place, mine, revision.meta.id)
    made = tasks.make(
        service=move.service,
        revision=revision,
        place=place,
        failures=0,
        suffix=suffix,
        now_ms=slots.next_moment(slot, situation.now_ms),
    )
    made.replaces, made.moved_because = task.meta.id, move.why
    return plan.Write(value=made, why=move.why)

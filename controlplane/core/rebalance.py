"""Which tasks are moved so that a service is spread again: after a node has come, or many replicas have gone.

Two rules. A task is moved only to where the scheduler would put it now, and only when it comes from a node with at
least two more tasks of its service: then one move makes the sum of the squares of these numbers smaller, so that there
is an end to it, and nothing is moved back. And it is done gently: one task of a service at a time, of a service in
which everything is as asked, with the new task ready before the old one stops.

Example: web has 3 tasks on n1, 3 on n2, and n3 has come back → one moves from n1 to n3 (9 + 9 + 0 → 4 + 9 + 1), then
one from n2 (4 + 4 + 4), and that is all.
"""

import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.core import ask as asking
from controlplane.core import choosing, fleet, leaving, places, plan, rollout, scheduler, slots, tasks
from controlplane.core import failures as remembering
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
    going = (*asked, *chosen)
    in_slots = _in_slots_of(going, situation.tasks)
    changes = tuple(_make(move, in_slots[_slot_of(move.task)], situation, next(suffixes)) for move in going)
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


def _in_slots_of(going: Sequence[Move], members: Iterable[pb.Task]) -> dict[tuple[str, str, int], list[pb.Task]]:
    """What is in the slots of those that move: one look at all tasks, however many move."""
    found: dict[tuple[str, str, int], list[pb.Task]] = {_slot_of(move.task): [] for move in going}
    for task in members if found else ():
        if (mine := found.get(_slot_of(task))) is not None:
            mine.append(task)
    return found


def _slot_of(task: pb.Task) -> tuple[str, str, int]:
    return task.meta.namespace, task.service, task.slot


def _service_of(task: pb.Task) -> asking.ServiceKey:
    return task.meta.namespace, task.service


def foresee(situation: Situation) -> Iterator[Move]:
    """All moves until nothing more is to be gained, as if each were made at once; one at a time, as they are found.

    The tasks are surveyed once: 500 moves of 5,000 tasks would be 500 surveys otherwise.
    """
    look = _Look(situation)
    groups = [look.group(service, members) for service, members in _uneven(situation)]
    found = 0
    while found < MOST_FORESEEN:
        made: list[tuple[_Group, Move]] = []
        for group in groups:
            if (move := look.best(group)) is not None:
                made.append((group, move))
                yield move
        for group, move in made:
            look.carry_out(group, move)
        found += len(made)
        if not made:
            return


def moves(situation: Situation) -> tuple[list[Move], int | None]:
    """What would make it better now, one task of a service at most; and when nodes stop being fresh."""
    uneven = list(_uneven(situation))
    if not uneven:
        return [], None
    look = _Look(situation)
    groups = (look.group(service, members) for service, members in uneven)
    return [move for group in groups if (move := look.best(group)) is not None], look.later


def staying(situation: Situation) -> Iterator[tuple[pb.Service, str]]:
    """Services that have many tasks on one node and few on another and stay so, and why. A global one has no choice."""
    return ((service, why) for service, _, why in _lopsided(situation, stays=True))


def _uneven(situation: Situation) -> Iterator[tuple[pb.Service, list[pb.Task]]]:
    """Services of which tasks may move, and that have many on one node and few on another; cheap to ask."""
    if situation.rules.strategy is not scheduler.Strategy.SPREAD:
        return  # all of them stay, and none has to be looked at for that
    for service, members, _ in _lopsided(situation, stays=False):
        if situation.per_minute or situation.is_asked_for(service):
            yield service, members


def _lopsided(situation: Situation, *, stays: bool) -> Iterator[tuple[pb.Service, list[pb.Task], str]]:
    """Those that stay so, with the reason, or those that need not."""
    members: dict[asking.ServiceKey, list[pb.Task]] = {}
    for task in situation.tasks:
        members.setdefault(_service_of(task), []).append(task)
    able = [node.meta.id for node in situation.nodes if _takes_part(node)]
    for key, service in sorted(situation.rules.services.items()):
        if service.meta.deleted_at or service.spec.mode == pb.SERVICE_MODE_GLOBAL:
            continue
        if bool(why := _stays(service, situation)) != stays:
            continue
        counts = Counter(task.node_id for task in members.get(key, ()) if tasks.is_live(task))
        numbers = [counts[node_id] for node_id in able]
        if numbers and max(numbers) - min(numbers) >= WORTH_IT:
            yield service, members.get(key, []), why


def _stays(service: pb.Service, situation: Situation) -> str:
    """Why no task of it may move; empty when some may."""
    status = service.status
    if situation.rules.strategy is not scheduler.Strategy.SPREAD:
        return "the control plane fills nodes up (--placement binpack)"
    if service.spec.rebalance.mode == pb.REBALANCE_MODE_OFF:
        return "it says `rebalance: off`"
    if service.spec.on_node_loss.fence:
        return "it is never to have two tasks in a slot (`onNodeLoss.fence`)"
    if not leaving.starts_first(service):
        return "it says `update.order: stop-first`, and a task moves by starting first"
    if not status.settled or status.observed_generation != service.meta.generation:
        return "something else about it is under way"
    return "" if status.rollout.state == rollout.COMPLETED else "a rollout goes on, or is watched for a moment more"


def _takes_part(node: pb.Node) -> bool:
    active = node.spec.availability in {pb.AVAILABILITY_UNSPECIFIED, pb.AVAILABILITY_ACTIVE}
    return active and node.status.state == pb.NODE_STATE_READY


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The tasks of a service, by the rows of their nodes."""

    service: pb.Service
    counts: Counter[int]
    """How many are live."""
    going: dict[int, list[pb.Task]]
    """Those that may go: the first to do so last."""

    def fullest(self) -> int | None:
        """From where one goes next."""
        rows = (row for row, members in self.going.items() if members)
        return max(rows, key=lambda row: (self.counts[row], self.going[row][-1].slot), default=None)


class _Look:
    """One look at the whole cluster; where one task is to go, the next finds it."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation
        placed = [task for task in situation.tasks if task.node_id]
        templates = {one.meta.id: one.template for one in situation.revisions.values()}
        rules = situation.rules
        self._ships = fleet.survey(situation.nodes, placed, templates, rules.everywhere, rules.stock)
        self._failures = remembering.Failures(self._ships.row_of, placed, situation.now_ms)
        self._open = frozenset(row for row, node in enumerate(self._ships.nodes) if _takes_part(node))
        self.later: int | None = None

    def group(self, service: pb.Service, members: Sequence[pb.Task]) -> _Group:
        """One goes that works where tasks come and go, and of whose slot none was moved in vain: what failed where it
        was moved to would be moved there again as soon as that is forgotten.
        """
        tried = {task.replaces for task in members}
        in_vain = {(task.revision_id, task.slot) for task in members if _was_moved(task) and tasks.failed(task)}
        counts: Counter[int] = Counter()
        going: dict[int, list[pb.Task]] = {}
        for task in sorted(members, key=_slot):
            row = self._ships.row_of.get(task.node_id)
            if row is None or not tasks.is_live(task):
                continue
            counts[row] += 1
            stays = task.meta.id in tried or (task.revision_id, task.slot) in in_vain
            if row in self._open and tasks.is_ready(task) and not stays:
                going.setdefault(row, []).append(task)
        return _Group(service=service, counts=counts, going=going)

    def best(self, group: _Group) -> Move | None:
        """From where it has most to where the scheduler would put one more."""
        source, counts, service = group.fullest(), group.counts, group.service
        if source is None or counts[source] - min(counts[row] for row in self._open) < WORTH_IT:
            return None
        task = group.going[source][-1]
        ask = self._ask(task, service)
        if ask is None:
            return None
        failures = self._failures.of(ask.revision_id)
        ranking = choosing.Chooser(self._ships, ask, failures, self._situation.rules.strategy).ranking()
        if not ranking or counts[source] - counts[ranking[0]] < WORTH_IT:
            self.later = plan.earliest([self.later, self._failures.forgotten_at(ask.revision_id)])
            return None
        if self._situation.patient and not self._situation.is_asked_for(service) and self._is_fresh(ranking[0]):
            return None
        self._ships.take(ranking[0], ask.demand, fleet.holder(task))
        self._ships.settle(ranking[0], ask)
        return self._move(service, task, (source, ranking[0]), counts)

    def carry_out(self, group: _Group, move: Move) -> None:
        """The task of a move is where it was to go, and not where it was."""
        source, target = (self._ships.row_of[node.meta.id] for node in (move.source, move.target))
        ask = self._ask(move.task, group.service)
        assert ask is not None, "it was looked at when the move was found"
        self._ships.leave(source, ask)
        group.counts[source] -= 1
        group.counts[target] += 1
        there = plan.copy(move.task)
        there.node_id = move.target.meta.id
        group.going[source].pop()
        bisect.insort(group.going.setdefault(target, []), there, key=_slot)

    def _ask(self, task: pb.Task, service: pb.Service) -> asking.Ask | None:
        """What the task asks of its node; None when nobody knows any more."""
        revision = self._situation.revisions.get(task.revision_id)
        return asking.read(task, revision.template, service.spec.priority) if revision is not None else None

    def _move(self, service: pb.Service, task: pb.Task, rows: tuple[int, int], counts: Mapping[int, int]) -> Move:
        source, target = (self._ships.nodes[row] for row in rows)
        why = (
            f"moves from {source.meta.name}, which has {counts[rows[0]]} tasks of {service.meta.name}, "
            f"to {target.meta.name}, which has {counts[rows[1]]}"
        )
        return Move(service=service, task=task, source=source, target=target, why=why)

    def _is_fresh(self, row: int) -> bool:
        until = self._ships.nodes[row].status.since + FRESH_MS
        if until <= self._situation.now_ms:
            return False
        self.later = plan.earliest([self.later, until])
        return True


def _was_moved(task: pb.Task) -> bool:
    """It was made to be elsewhere, and not because its node was drained."""
    return bool(task.replaces) and task.moved_because != leaving.DRAINED


def _slot(task: pb.Task) -> int:
    return task.slot


def _make(move: Move, mine: Sequence[pb.Task], situation: Situation, suffix: str) -> plan.Write:
    """`mine`: what is in the slot."""
    task, revision = move.task, situation.revisions[move.task.revision_id]
    place = places.Place(number=task.slot, word=str(task.slot))
    slot = slots.sort_out(place, list(mine), revision.meta.id)
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

"""Chooses a node for every task that has none.

Tasks of one revision are equal, so the work is done once for the group: filter all nodes, order those that pass by
score (`choosing`, `scoring`), and take from them as many times as there are tasks. Groups come in the order of their
service's priority; those that find no place may have others make way for them (`preemption`).

A task of a global service belongs to one node: for it there is nothing to compare.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from controlplane.core import ask as asking
from controlplane.core import choosing, fleet, locality, plan, preemption, refusals
from controlplane.core import failures as remembering
from controlplane.core.scoring import Strategy
from protos import states
from protos.orch.v1 import objects_pb2 as pb

__all__ = ["Rules", "Strategy", "schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds beside nodes and tasks."""

    everywhere: Mapping[fleet.HostPort, str] = field(default_factory=lambda: MappingProxyType({}))
    """The ports that services publish on every node, and which service."""
    services: Mapping[asking.ServiceKey, pb.Service] = field(default_factory=lambda: MappingProxyType({}))
    """By namespace and name."""
    strategy: Strategy = Strategy.SPREAD
    stock: locality.Stock = locality.EMPTY
    """What nodes have of the images."""

    def priority(self, key: asking.ServiceKey) -> int:
        """Of a service; 0 of one that is gone."""
        service = self.services.get(key)
        return service.spec.priority if service is not None else 0


DEFAULT_RULES = Rules()


def schedule(
    nodes: Iterable[pb.Node],
    placed: Collection[pb.Task],
    waiting: Collection[pb.Task],
    templates: Mapping[str, pb.TaskTemplate],
    now_ms: int,
    rules: Rules = DEFAULT_RULES,
) -> plan.Plan:
    """Nodes for the tasks of `waiting`, or the reasons why not. `placed`: every task that has a node."""
    if not waiting:
        return plan.NOTHING
    work = _Pass(nodes, placed, templates, now_ms, rules)
    changes: list[plan.Change] = []
    for group in _groups(waiting, rules):
        template = templates.get(group[0].revision_id)
        if template is not None:  # else its revision has not arrived yet; its arrival wakes the scheduler
            changes += work.place(group, template)
    return plan.Plan(changes=tuple(changes))


def _groups(waiting: Collection[pb.Task], rules: Rules) -> list[list[pb.Task]]:
    """Tasks of one revision, the highest priority first, then the oldest first task; within a group by slot.

    Those that belong to one node each are a group of their own, since they are placed otherwise: a service that has
    become global has both.
    """
    groups: dict[tuple[str, bool], list[pb.Task]] = {}
    for task in waiting:
        groups.setdefault((task.revision_id, bool(task.target_node_id)), []).append(task)
    for group in groups.values():
        group.sort(key=lambda task: ((meta := task.meta).created_at, task.slot, meta.id))
    return sorted(groups.values(), key=lambda group: _turn(group[0], rules))


def _turn(first: pb.Task, rules: Rules) -> tuple[int, int, str, int, str]:
    meta = first.meta
    return -rules.priority((meta.namespace, first.service)), meta.created_at, first.service, first.slot, meta.id


class _Pass:
    """One look at the whole cluster; what one group takes, the next does not have."""

    def __init__(
        self,
        nodes: Iterable[pb.Node],
        placed: Collection[pb.Task],
        templates: Mapping[str, pb.TaskTemplate],
        now_ms: int,
        rules: Rules,
    ) -> None:
        self._placed, self._templates, self._now_ms, self._rules = placed, templates, now_ms, rules
        self._assigned = pb.TaskStatus(state=states.ASSIGNED, at=now_ms)
        self._ships = fleet.survey(nodes, placed, templates, rules.everywhere, rules.stock)
        self._failures = remembering.Failures(self._ships.row_of, placed, now_ms)
        # Of tasks whose service is gone, the priority is 0.
        self._lowest = min([0, *(service.spec.priority for service in rules.services.values())])
        self._preemption: preemption.Preemption | None = None
        self._labels: dict[int, tuple[str, str]] = {}
        """By row, the node's id and what is said of a task that goes there."""

    def place(self, group: Sequence[pb.Task], template: pb.TaskTemplate) -> list[plan.Change]:
        """What becomes of the tasks of a group."""
        first, ships = group[0], self._ships
        ask = asking.read(first, template, self._rules.priority((first.meta.namespace, first.service)))
        chooser = choosing.Chooser(ships, ask, self._failures.of(ask.revision_id), self._rules.strategy)
        rows = self._rows(chooser, group)
        changes: list[plan.Change] = []
        for state in {task.status.state for task in group}:
            states.check(state, states.ASSIGNED, states.Owner.SCHEDULER)
        for task, row in zip(group, rows, strict=True):
            if row is not None:
                granted = ships.grant(row, ask.demand.generic) if ask.demand.generic else None
                changes.append(self._assign(task, row, granted))
        ships.take_all(chooser.taken, ask, fleet.holder(first))
        left = [task for task, row in zip(group, rows, strict=True) if row is None]
        return [*changes, *self._place_none(left, ask)]

    def _rows(self, chooser: choosing.Chooser, group: Sequence[pb.Task]) -> Sequence[int | None]:
        """Where each task goes; None: nowhere."""
        if group[0].target_node_id:
            targets = (self._ships.row_of.get(task.target_node_id) for task in group)
            return [row if row is not None and chooser.on(row) else None for row in targets]
        best = chooser.best(len(group))
        return [*best, *[None] * (len(group) - len(best))]

    def _assign(self, task: pb.Task, row: int, granted: Mapping[str, Sequence[str]] | None) -> plan.Write:
        label = self._labels.get(row)
        if label is None:
            node = self._ships.nodes[row].meta
            label = self._labels[row] = node.id, f"assigned to node {node.name}"
        changed = pb.Task()
        changed.CopyFrom(task)
        changed.node_id, why = label
        changed.status.CopyFrom(self._assigned)
        if granted:
            for name, ids in granted.items():
                changed.granted[name].ids.extend(ids)
        return plan.Write(value=changed, why=why)

    def _place_none(self, left: Sequence[pb.Task], ask: asking.Ask) -> Iterator[plan.Change]:
        """The tasks that found no node: others make way for them, or they are told why not."""
        look: refusals.Look | None = None
        everywhere: list[pb.Refusal] | None = None
        for task in left:
            way = None if everywhere is not None and not task.target_node_id else self._make_way(task, ask)
            if way is not None:
                look = None  # it has been booked
                yield from preemption.stops(way, task, self._now_ms)
                waits = _wait(task, _for_whom(way, self._ships), "Preempting", (), self._now_ms)
            else:
                look = look or refusals.Look(self._ships, ask)
                if task.target_node_id:
                    told = self._explain_target(task, look)
                else:
                    told = everywhere = look.refusals() if everywhere is None else everywhere
                message = refusals.sentence(told) + self._who_is_spared(ask)
                waits = _wait(task, message, "Unschedulable", told, self._now_ms)
            if waits is not None:
                yield waits

    def _make_way(self, task: pb.Task, ask: asking.Ask) -> preemption.Way | None:
        if ask.priority <= self._lowest:
            return None
        if self._preemption is None:
            self._preemption = preemption.Preemption(self._ships, self._placed, self._templates, self._rules.services)
        if not self._preemption.may_help(ask):
            return None
        row = self._ships.row_of.get(task.target_node_id, -1) if task.target_node_id else None
        return self._preemption.make_way(ask, row)

    def _who_is_spared(self, ask: asking.Ask) -> str:
        """`; train would make way, and may not miss so many tasks now`; empty when nobody would."""
        spared = self._preemption.spared(ask) if self._preemption is not None else ()
        if not spared:
            return ""
        names = ", ".join(spared[: refusals.MAX_EXAMPLES]) + (", …" if len(spared) > refusals.MAX_EXAMPLES else "")
        return f"; {names} would make way, and may not miss so many tasks now"

    def _explain_target(self, task: pb.Task, look: refusals.Look) -> list[pb.Refusal]:
        row = self._ships.row_of.get(task.target_node_id)
        if row is None:
            detail = "it is the only node for the task, and not there any more"
            return [pb.Refusal(filter="target", detail=detail, nodes=1, examples=[task.target_node_id])]
        return look.refusals([row])


def _for_whom(way: preemption.Way, ships: fleet.Fleet) -> str:
    """`waits for room on node n2, until web-1-x and web-2-y have ended`."""
    names = sorted(one.task.meta.name for one in (*way.victims, *way.ending))
    shown = ", ".join(names[: refusals.MAX_EXAMPLES])
    more = f" and {len(names) - refusals.MAX_EXAMPLES} more" if len(names) > refusals.MAX_EXAMPLES else ""
    verb = "has" if len(names) == 1 else "have"
    return f"waits for room on node {ships.nodes[way.row].meta.name}, until {shown}{more} {verb} ended"


def _wait(task: pb.Task, message: str, reason: str, refusals: Sequence[pb.Refusal], now_ms: int) -> plan.Write | None:
    """The task with the reasons why it waits; None when it says so already."""
    if task.status.state == states.PENDING and task.status.message == message:
        return None
    states.check(task.status.state, states.PENDING, states.Owner.SCHEDULER)
    changed = plan.copy(task)
    at = task.status.at if task.status.state == states.PENDING else now_ms
    changed.status.CopyFrom(
        pb.TaskStatus(state=states.PENDING, at=at, message=message, reason=reason, refusals=refusals)
    )
    return plan.Write(value=changed, why=message)

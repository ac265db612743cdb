"""Where the tasks of applied services would go: the scheduler, asked about tasks that are only thought of.

The rule: what is told is the end of the rollout. Tasks of a template that changes count as gone, and those that stay
as where they are.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from controlplane.core import locality, places, revisions, scheduler, tasks
from manifests import defaults
from protos import kinds, states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

MOST = 2_000
"""New tasks for which a node is looked for. Who applies more sees the first ones, and how many are left out."""
_THOUGHT = "thought of: "

_OwnedT = TypeVar("_OwnedT", pb.Task, pb.Revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is there now."""

    nodes: Sequence[pb.Node]
    tasks: Sequence[pb.Task]
    revisions: Sequence[pb.Revision]
    rules: scheduler.Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Where tasks would go, and how many more nobody has looked for."""

    tasks: Sequence[api.PlannedTask]
    left_out: int


def placements(applied: Iterable[pb.Service], present: Present, now_ms: int) -> Forecast:
    """For the tasks of these services, in their order."""
    wanted = [service for service in applied if not service.meta.deleted_at]
    after = {**present.rules.services, **{(one.meta.namespace, one.meta.name): one for one in wanted}}
    templates = {one.meta.id: one.template for one in present.revisions}
    members, histories = _by_service(present.tasks), _by_service(present.revisions)
    kept, waiting, left_out = [], list[pb.Task](), 0
    for service in wanted:
        name = kinds.qualified(service)
        there = revisions.existing(service.spec, histories.get(name, ()))
        revision_id = there.meta.id if there is not None else _THOUGHT + name
        staying = _staying(service, members.get(name, ()), revision_id, present.nodes)
        kept += staying
        new = list(_new(service, staying, present.nodes, revision_id, now_ms))
        room = MOST - len(waiting)
        waiting += new[:room]
        left_out += max(len(new) - room, 0)
        templates.setdefault(revision_id, defaults.resolve(service.spec.template))
    changing = {kinds.qualified(service) for service in wanted}
    # What has ended takes nothing, but tells where a revision has failed lately.
    others = [task for task in present.tasks if kinds.service_of(task) not in changing or _has_ended(task)]
    placed = [task for task in (*others, *kept) if task.node_id]
    thought = {_THOUGHT + kinds.qualified(one): frozenset(one.spec.images.values()) for one in wanted}
    rules = replace(present.rules, services=after, stock=present.rules.stock.having(thought))
    made = scheduler.schedule(present.nodes, placed, waiting, templates, now_ms, rules)
    teller = _Teller(present.nodes, rules.stock)
    told = [teller.stays(task) for task in kept]
    told += [
        teller.goes(change.value)
        for change in made.changes
        if isinstance(change.value, pb.Task) and change.value.meta.id.startswith(_THOUGHT)
    ]
    order = {kinds.qualified(service): number for number, service in enumerate(wanted)}
    in_order = sorted(told, key=lambda one: (order[one.service], one.slot, one.node))
    return Forecast(tasks=in_order, left_out=left_out)


def _by_service(values: Iterable[_OwnedT]) -> Mapping[str, Sequence[_OwnedT]]:
    found: dict[str, list[_OwnedT]] = {}
    for one in values:
        found.setdefault(kinds.service_of(one), []).append(one)
    return found


def _staying(
    service: pb.Service, members: Iterable[pb.Task], revision_id: str, nodes: Sequence[pb.Node]
) -> list[pb.Task]:
    """Of the tasks of the service, those that the apply leaves alone."""
    mine = [task for task in members if task.node_id and task.revision_id == revision_id]
    alive = [task for task in mine if tasks.is_live(task)]
    wanted = {place.key for place in _places(service, nodes, {task.target_node_id for task in alive})}
    return [task for task in alive if places.key_of(task) in wanted]


def _has_ended(task: pb.Task) -> bool:
    return states.is_terminal(task.status.state)


def _new(
    service: pb.Service, staying: Iterable[pb.Task], nodes: Sequence[pb.Node], revision_id: str, now_ms: int
) -> Iterator[pb.Task]:
    """A task for each place that is free."""
    filled = {places.key_of(task) for task in staying}
    for place in _places(service, nodes, ()):
        if place.key not in filled:
            yield _thought(service, place, revision_id, now_ms)


def _places(service: pb.Service, nodes: Sequence[pb.Node], occupied: Collection[str]) -> list[places.Place]:
    template: pb.TaskTemplate = defaults.resolve(service.spec.template)
    return places.wanted(service, template, nodes, occupied)


def _thought(service: pb.Service, place: places.Place, revision_id: str, now_ms: int) -> pb.Task:
    name = f"{service.meta.name}-{place.word}"
    return pb.Task(
        meta=pb.Meta(id=f"{_THOUGHT}{name}", name=name, namespace=service.meta.namespace, created_at=now_ms),
        service=service.meta.name,
        revision_id=revision_id,
        slot=place.number,
        target_node_id=place.node_id,
        desired_state=pb.DESIRED_STATE_RUNNING,
        status=pb.TaskStatus(state=states.NEW),
    )


class _Teller:
    """Tells of each task where it is, or would be."""

    def __init__(self, nodes: Sequence[pb.Node], stock: locality.Stock) -> None:
        self._names = {node.meta.id: node.meta.name for node in nodes}
        self._rows = {node.meta.id: row for row, node in enumerate(nodes)}
        self._shelves = stock.holders.numbers(self._rows)
        self._stock = stock
        self._lacking: dict[str, locality.Lacking | None] = {}

    def stays(self, task: pb.Task) -> api.PlannedTask:
        node = self._names.get(task.node_id, task.node_id)
        return api.PlannedTask(service=kinds.service_of(task), slot=task.slot, node=node, stays=True)

    def goes(self, task: pb.Task) -> api.PlannedTask:
        return api.PlannedTask(
            service=kinds.service_of(task),
            slot=task.slot,
            node=self._names.get(task.node_id, ""),
            message=task.status.message,
            fetches=self._fetches(task),
        )

    def _fetches(self, task: pb.Task) -> str:
        """In words; nothing where that sets no nodes apart."""
        if task.revision_id not in self._lacking:
            self._lacking[task.revision_id] = self._stock.lacking(task.revision_id, self._shelves)
        lacking, row = self._lacking[task.revision_id], self._rows.get(task.node_id)
        return lacking.words(row) if lacking is not None and row is not None else ""

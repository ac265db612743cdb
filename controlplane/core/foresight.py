"""Where the tasks of applied services would go: the scheduler, asked about tasks that are only thought of.

The rule: what is told is the end of the rollout. Tasks of a template that changes count as gone, and those that stay
as where they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.core import filters, revisions, scheduler, tasks
from manifests import defaults
from protos import states
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

MOST = 2_000
"""Tasks that are told of one by one. Who applies more sees the first ones."""
_THOUGHT = "thought of: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What is there now."""

    nodes: Sequence[pb.Node]
    tasks: Sequence[pb.Task]
    revisions: Sequence[pb.Revision]
    rules: scheduler.Rules


def placements(applied: Iterable[pb.Service], present: Present, now_ms: int) -> list[api.PlannedTask]:
    """For every task of these services, in their order."""
    wanted = [service for service in applied if not service.meta.deleted_at]
    after = {**present.rules.services, **{(one.meta.namespace, one.meta.name): one for one in wanted}}
    names = {node.meta.id: node.meta.name for node in present.nodes}
    templates = {one.meta.id: one.template for one in present.revisions}
    kept, waiting = [], list[pb.Task]()
    for service in wanted:
        staying = _staying(service, present)
        kept += staying
        new = list(_new(service, {task.slot for task in staying}, present.nodes, now_ms))
        waiting += new[: max(MOST - len(waiting), 0)]
        templates[_THOUGHT + _name(service)] = defaults.resolve(service.spec.template)
    changing = {_name(service) for service in wanted}
    others = [task for task in present.tasks if f"{task.meta.namespace}/{task.service}" not in changing]
    placed = [task for task in (*others, *kept) if task.node_id]
    rules = replace(present.rules, services=after)
    made = scheduler.schedule(present.nodes, placed, waiting, templates, now_ms, rules)
    told = [_stays(task, names) for task in kept]
    told += [
        _goes(change.value, names)
        for change in made.changes
        if isinstance(change.value, pb.Task) and _is_told(change.value)
    ]
    order = {_name(service): number for number, service in enumerate(wanted)}
    return sorted(told, key=lambda one: (order[one.service], one.slot, one.node))


def _staying(service: pb.Service, present: Present) -> list[pb.Task]:
    """Its tasks that the apply leaves alone."""
    key = (service.meta.namespace, service.meta.name)
    newest = revisions.latest([one for one in present.revisions if (one.meta.namespace, one.service) == key])
    if newest is None or newest.written != service.spec.template:
        return []
    mine = [task for task in present.tasks if (task.meta.namespace, task.service) == key and task.node_id]
    alive = [task for task in mine if tasks.is_live(task) and task.revision_id == newest.meta.id]
    is_global = service.spec.mode == pb.SERVICE_MODE_GLOBAL
    return [task for task in alive if is_global or task.slot <= service.spec.replicas]


def _new(service: pb.Service, filled: set[int], nodes: Sequence[pb.Node], now_ms: int) -> Iterator[pb.Task]:
    """A task for each slot that is free; of a global service one for each node, of which some will not take it."""
    if service.spec.mode == pb.SERVICE_MODE_GLOBAL:
        for number, node in enumerate(nodes, start=1):
            yield _thought(service, number, now_ms, target=node.meta.id)
        return
    for slot in range(1, service.spec.replicas + 1):
        if slot not in filled:
            yield _thought(service, slot, now_ms)


def _thought(service: pb.Service, slot: int, now_ms: int, *, target: str = "") -> pb.Task:
    name = f"{service.meta.name}-{slot}"
    return pb.Task(
        meta=pb.Meta(id=f"{_THOUGHT}{name}", name=name, namespace=service.meta.namespace, created_at=now_ms),
        service=service.meta.name,
        revision_id=_THOUGHT + _name(service),
        slot=slot,
        target_node_id=target,
        desired_state=pb.DESIRED_STATE_RUNNING,
        status=pb.TaskStatus(state=states.NEW),
    )


def _is_told(task: pb.Task) -> bool:
    """Those that were thought of; of a global service those whose node is one for it, whether it has room or not."""
    refused = task.target_node_id and any(reason.filter in _NOT_ELIGIBLE for reason in task.status.refusals)
    return task.revision_id.startswith(_THOUGHT) and not refused


_NOT_ELIGIBLE = frozenset(one.name for one in filters.STILL)


def _stays(task: pb.Task, names: Mapping[str, str]) -> api.PlannedTask:
    service = f"{task.meta.namespace}/{task.service}"
    return api.PlannedTask(service=service, slot=task.slot, node=names.get(task.node_id, task.node_id), stays=True)


def _goes(task: pb.Task, names: Mapping[str, str]) -> api.PlannedTask:
    service = f"{task.meta.namespace}/{task.service}"
    return api.PlannedTask(
        service=service, slot=task.slot, node=names.get(task.node_id, ""), message=task.status.message
    )


def _name(service: pb.Service) -> str:
    return f"{service.meta.namespace}/{service.meta.name}"

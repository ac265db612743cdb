"""Which services wait for others before their tasks start, and which outlive others when all of them go.

Two rules: a task that was let go is never held again, because a database that fails later is no reason to stop what
uses it; and everything is read off what is stored, so that a missed event holds nothing for ever.

    web dependsOn {database: ready}:  web's tasks are prepared and held ─ database: 3 of 3 ready ─► they start
    both are deleted, or stopped:     web's tasks stop ─► they have ended ─► database's tasks stop
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from controlplane.core import places, plan, tasks
from manifests import dependencies
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

TasksOf = Callable[[pb.Service], Collection[pb.Task]]

WISHES = {
    pb.DEPENDENCY_CONDITION_STARTED: "to run",
    pb.DEPENDENCY_CONDITION_COMPLETED: "to end well",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A service that another one depends on; None when there is none of that name."""

    service: pb.Service | None
    tasks: Collection[pb.Task] = ()


def waits_for(service: pb.Service, others: Mapping[str, Other]) -> str:
    """What the service's new tasks are held for, in words: `database to be ready and migration to end well`.

    Empty when nothing holds them. `others` by name, every one that the service depends on. The words change only when
    what they tell does, because each change is written to every task that is held.
    """
    parts = []
    for name, condition in sorted(service.spec.depends_on.items()):
        other = others[name].service
        wish = f"{name} {WISHES.get(condition, 'to be ready')}"
        if other is None:
            parts.append(f"{wish}, which does not exist")
        elif other.meta.deleted_at:
            parts.append(f"{wish}, which is being deleted")
        elif not _is_fulfilled(other, others[name].tasks, condition):
            parts.append(wish)
    return " and ".join(parts)


def _is_fulfilled(other: pb.Service, members: Collection[pb.Task], condition: int) -> bool:
    """A status that is older than the spec says nothing; and where no task is wanted, none is ready."""
    status = other.status
    if not status.replicas or status.observed_generation != other.meta.generation:
        return False
    if condition == pb.DEPENDENCY_CONDITION_STARTED:
        return status.running >= status.replicas
    if condition == pb.DEPENDENCY_CONDITION_COMPLETED:
        return _completed(members) >= status.replicas
    return status.ready >= status.replicas


def _completed(members: Iterable[pb.Task]) -> int:
    """How many places have come to a good end: the last task of each, with no other after it."""
    return sum(map(_has_ended_well, places.by_key(members).values()))


def _has_ended_well(place: Collection[pb.Task]) -> bool:
    last = tasks.newest(place)
    over = all(states.is_terminal(task.status.state) for task in place)
    return over and last is not None and tasks.ended_well(last)


def let_go(members: Iterable[pb.Task], waits: str) -> Iterator[plan.Write]:
    """Starts the tasks that were held, when nothing holds them any more; else tells them what does."""
    for task in members:
        if task.desired_state != pb.DESIRED_STATE_READY or states.is_terminal(task.status.state):
            continue
        if waits == task.waits_for:
            continue
        changed = plan.copy(task)
        changed.waits_for = waits
        if not waits:
            changed.desired_state = pb.DESIRED_STATE_RUNNING
        yield plan.Write(value=changed, why=f"it waits for {waits}" if waits else "what it depends on is there")


def needed_by(service: pb.Service, services: Iterable[pb.Service], tasks_of: TasksOf) -> tuple[str, ...]:
    """The services that depend on this one, when it is deleted or stopped and they are on their way out, too: its tasks
    run until theirs have ended.

    Two that depend on each other, which no apply lets through, would stay for ever: neither waits then.
    """
    if not is_leaving(service):
        return ()
    near = [one for one in services if one.meta.namespace == service.meta.namespace]
    users = [one for one in near if service.meta.name in one.spec.depends_on and _is_going(one, tasks_of)]
    mutual = dependencies.cycle_through(kinds.qualified(service), dependencies.graph_of(near)) if users else ()
    return tuple(sorted(one.meta.name for one in users if kinds.qualified(one) not in mutual))


def is_leaving(service: pb.Service) -> bool:
    """Whether it is to have no tasks."""
    return bool(service.meta.deleted_at) or service.spec.stopped


def _is_going(service: pb.Service, tasks_of: TasksOf) -> bool:
    """One that is being deleted is there until its last task has ended, and then it is not."""
    if service.meta.deleted_at:
        return True
    return service.spec.stopped and not all(states.is_terminal(task.status.state) for task in tasks_of(service))

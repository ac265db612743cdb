"""Keeps a service whole: one good task in each of its places, of the revision that its rollout leads to.

The naive design reacts to events: a task failed, start another. It fails when an event is missed or two overlap. This
one looks at all tasks of the service and says what is missing; asked twice, it says the same.

A slot is free when its last task has ended. A task that was told to stop holds its slot until then, so that a
replacement finds the port and the memory that it needs. Which tasks are replaced when another revision is wanted is
the rollout's to say (`replacing`); a new task may then stand beside the old one of its slot until it is ready.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from controlplane.core import (
    leaving,
    places,
    plan,
    replacing,
    revisions,
    rollout,
    rollout_failures,
    slots,
    tasks,
    update_policy,
)
from controlplane.core import service_status as status_of
from protos import states
from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that is known of one service."""

    service: pb.Service
    revisions: Collection[pb.Revision]
    tasks: Collection[pb.Task]
    draining: frozenset[str]
    """Ids of the nodes whose tasks have to leave, since they are drained."""
    now_ms: int
    driven: frozenset[tuple[str, str]] = frozenset()
    """Revisions and nodes, by their ids, whose tasks a taint drives out."""
    nodes: Collection[pb.Node] = ()
    """All of them, for a global service."""
    deadlines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """When draining ends to wait for anything, by the ids of the nodes that have such a time."""
    address: str = ""
    """A virtual address for it, when it is to get one."""
    address6: str = ""
    """The same for IPv6."""
    waits_for: str = ""
    """What its new tasks are held for, when it depends on other services."""
    needed: bool = False
    """Whether services that are deleted or stopped with it depend on it: its tasks end only after theirs."""
    trouble: str = ""
    """What the network does not give it, for its status."""

    def revision(self, revision_id: str) -> pb.Revision | None:
        return next((one for one in self.revisions if one.meta.id == revision_id), None)


def reconcile(situation: Situation, suffixes: Iterator[str]) -> plan.Plan:
    """What to change so that the service comes nearer to its spec. `suffixes`: random parts for names of new tasks."""
    if situation.service.meta.deleted_at and not situation.needed:
        return _delete(situation)
    service, now_ms = situation.service, situation.now_ms
    target, is_new = revisions.current(service, situation.revisions, now_ms)
    course, departures, surplus, judged_at = _course(situation, target)
    told = {one.meta.id: one for one in revisions.annotated(service, target, situation.revisions, course.status)}
    target = told.pop(target.meta.id, target)
    changes: list[plan.Change] = []
    if is_new or target != situation.revision(target.meta.id):
        changes.append(plan.Write(value=target, why="the template changed" if is_new else "its rollout went on"))
    changes += [plan.Write(value=one, why="another took its place") for one in told.values()]
    changes += [stop for task in surplus if (stop := tasks.stop(task, pb.DESIRED_STATE_REMOVE, _why(service), now_ms))]
    ended, begun, rests_until = course.replaced()
    changes += _stops(course, departures, ended, now_ms)
    filling, wake_at = _fill(course, begun, situation, suffixes)
    changes += [*filling, *_move(course, departures, situation, suffixes)]
    status = _status(situation, course, target)
    changes += [status] if status is not None else []
    return plan.Plan(
        changes=tuple(changes), wake_at=plan.earliest([judged_at, rests_until, wake_at, departures.wake_at])
    )


def _why(service: pb.Service) -> str:
    if service.spec.stopped:
        return "the service is stopped"
    return "its node takes none" if service.spec.mode == pb.SERVICE_MODE_GLOBAL else "more replicas than wanted"


def _course(
    situation: Situation, target: pb.Revision
) -> tuple[replacing.Course, leaving.Leaving, list[pb.Task], int | None]:
    """Where the rollout stands and leads to, what leaves, the tasks that have no place, and when to judge it again.

    What is judged may turn the rollout back; then the slots are looked at once more, for the other revision.
    """
    service = situation.service
    known = {one.meta.id: one for one in (*situation.revisions, target)}
    templates = [one.template for one in known.values()]
    status = rollout.follow(service, target.meta.id, situation.now_ms)
    while True:
        goal = known.get(rollout.goal_id(status), target)
        members, surplus = _members(situation, goal)
        policy = update_policy.of(service.spec, goal.template, len(members), templates)
        status, judged_at = rollout.judge(status, policy, service.spec.rollout, members, goal, situation.now_ms)
        if known.get(rollout.goal_id(status), target) is goal:
            break
    departures = leaving.decide(_case(members, situation))
    failures = rollout_failures.Case(status=status, policy=policy, goal=goal, now_ms=situation.now_ms)
    given_up = failures.given_up(members) if status.state in rollout.UNDECIDED else frozenset[places.Key]()
    course = replacing.Course(
        status=status,
        policy=policy,
        control=service.spec.rollout,
        goal=goal,
        stable=known.get(status.stable_revision_id),
        members=members,
        leaving=departures.concerned,
        moving=departures.moving,
        given_up=given_up,
        vain=failures.in_vain(slot for slot in members if slot.place.key in given_up),
        now_ms=situation.now_ms,
    )
    return course, departures, surplus, judged_at


def _members(situation: Situation, goal: pb.Revision) -> tuple[list[slots.Slot], list[pb.Task]]:
    """The slots of the service, and the tasks that are in none of them."""
    occupied = {task.target_node_id for task in situation.tasks if tasks.is_live(task)}
    by_key = places.by_key(situation.tasks)
    members = [
        slots.sort_out(place, by_key.pop(place.key, ()), goal.meta.id)
        for place in places.wanted(situation.service, goal.template, situation.nodes, occupied, needed=situation.needed)
    ]
    return members, [task for others in by_key.values() for task in others]


def _case(members: Sequence[slots.Slot], situation: Situation) -> leaving.Case:
    return leaving.Case(
        service=situation.service,
        members=members,
        tasks=situation.tasks,
        draining=situation.draining,
        driven=situation.driven,
        deadlines=situation.deadlines,
        now_ms=situation.now_ms,
    )


def _stops(
    course: replacing.Course, departures: leaving.Leaving, ended: Sequence[pb.Task], now_ms: int
) -> Iterator[plan.Change]:
    """Doubles stop, tasks of a drained node leave, replaced ones make way, and what was lost is not wanted back."""
    whys: dict[str, tuple[pb.Task, str]] = {}
    for task, why in (*departures.stopped, *course.doubles()):
        whys.setdefault(task.meta.id, (task, why))
    for slot in course.members:
        for task in slot.ended:
            if task.status.state == states.ORPHANED:
                whys.setdefault(task.meta.id, (task, "its node was lost; it stops if it returns"))
    for task in ended:
        whys.setdefault(task.meta.id, (task, course.why_replaced()))
    stops = (tasks.stop(task, pb.DESIRED_STATE_SHUTDOWN, why, now_ms) for task, why in whys.values())
    return (stop for stop in stops if stop is not None)


def _fill(
    course: replacing.Course, begun: Sequence[slots.Slot], situation: Situation, suffixes: Iterator[str]
) -> tuple[list[plan.Change], int | None]:
    """New tasks for the slots that are free or get a second one, and when the next of those that wait may get one."""
    changes: list[plan.Change] = []
    waiting: list[int] = []
    chosen = course.revisions_of_free()
    for slot in course.members:
        revision = chosen.get(slot.place.key)
        if revision is None or slot.stopping or slot.place.held or slots.is_done(slot, revision):
            continue
        ready_at = slots.ready_at(slot, revision.meta.id)
        if ready_at > situation.now_ms:
            waiting.append(ready_at)
            continue
        changes.append(_new(slot, revision, situation, next(suffixes), f"slot {slot.place.word} is free"))
    changes += [_new(slot, course.goal, situation, next(suffixes), course.why_replaced()) for slot in begun]
    return changes, plan.earliest(waiting)


def _move(
    course: replacing.Course, departures: leaving.Leaving, situation: Situation, suffixes: Iterator[str]
) -> Iterator[plan.Change]:
    """Tasks beside those that are to leave: of the same revision, unless that is not wanted any more."""
    for slot, task in departures.begun:
        own = None if course.status.state in rollout.BACKWARDS else situation.revision(task.revision_id)
        made = _task(slot, own or course.goal, situation, next(suffixes))
        made.replaces, made.moved_because = task.meta.id, leaving.DRAINED
        yield plan.Write(value=made, why=f"takes the place of {task.meta.name}")


def _new(slot: slots.Slot, revision: pb.Revision, situation: Situation, suffix: str, why: str) -> plan.Change:
    return plan.Write(value=_task(slot, revision, situation, suffix), why=why)


def _task(slot: slots.Slot, revision: pb.Revision, situation: Situation, suffix: str) -> pb.Task:
    return tasks.make(
        service=situation.service,
        revision=revision,
        place=slot.place,
        failures=slots.failures_before(slot, revision.meta.id),
        suffix=suffix,
        waits_for=situation.waits_for,
        now_ms=slots.next_moment(slot, situation.now_ms),
    )


def _status(situation: Situation, course: replacing.Course, target: pb.Revision) -> plan.Change | None:
    service = situation.service
    status = status_of.of(service, course, target, situation.tasks)
    status.address = service.status.address or situation.address
    status.address6 = service.status.address6 or situation.address6
    if situation.trouble:
        status.message += f"; {situation.trouble}"
    if status == service.status:
        return None
    changed = plan.copy(service)
    changed.status.CopyFrom(status)
    return plan.Write(value=changed, why=status.message)


def _delete(situation: Situation) -> plan.Plan:
    """Tasks first; when the last has gone, the revisions and the service itself."""
    now_ms = situation.now_ms
    stops = [tasks.stop(task, pb.DESIRED_STATE_REMOVE, "its service is deleted", now_ms) for task in situation.tasks]
    changes: list[plan.Change] = [stop for stop in stops if stop is not None]
    if not situation.tasks:
        changes += [plan.Remove(value=revision, why="its service is deleted") for revision in situation.revisions]
        changes.append(plan.Remove(value=situation.service, why="everything that it owned has gone"))
    return plan.Plan(changes=tuple(changes))

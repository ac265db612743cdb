"""What must hold of rollouts after every commit: nothing is lost, no more goes on at a time than was allowed, what was
paused is paused and what was refused stays refused.

The rule: only what the leader did on the present wish of people is judged. While a service's status tells of an older
generation, the leader may not have seen the wish yet.
"""

from collections.abc import Mapping

from controlplane.core import demand, preemption, tasks
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import update_rules
from tests.sim.violation import Violation

Objects = Mapping[str, kinds.StoredObject]
Place = tuple[str, str, int, str]
"""Namespace, service, slot and node."""

_WAYS: Mapping[int, frozenset[int]] = {
    pb.ROLLOUT_STATE_ROLLING_BACK: frozenset({pb.ROLLOUT_STATE_ROLLED_BACK}),
    pb.ROLLOUT_STATE_ROLLED_BACK: frozenset(),
    pb.ROLLOUT_STATE_COMPLETED: frozenset(),
}
_BACKWARDS = frozenset({pb.ROLLOUT_STATE_ROLLING_BACK, pb.ROLLOUT_STATE_ROLLED_BACK})


def place_of(task: pb.Task) -> Place:
    return task.meta.namespace, task.service, task.slot, task.target_node_id


def check(objects: Objects, before: kinds.StoredObject | None, after: kinds.StoredObject | None) -> None:
    """Called with each change, before it is among the objects. Raises Violation."""
    match after:
        case pb.Service() if isinstance(before, pb.Service):
            _check_way(before, after)
        case pb.Task():
            service = objects.get(f"/orch/service/{after.meta.namespace}/{after.service}")
            if not isinstance(service, pb.Service) or service.status.observed_generation != service.meta.generation:
                return
            if before is None:
                _check_made(objects, service, after)
            elif isinstance(before, pb.Task):
                _check_stopped(objects, service, before, after)


def check_places(all_tasks: list[pb.Task]) -> None:
    """In a place are at most two tasks that have not ended: of two revisions, or one is there for the other to go."""
    places: dict[Place, list[pb.Task]] = {}
    for task in all_tasks:
        if not states.is_terminal(task.status.state) and task.desired_state < pb.DESIRED_STATE_REMOVE:
            places.setdefault(place_of(task), []).append(task)
    for place, members in places.items():
        ids = {task.meta.id for task in members}
        moved = any(task.replaces in ids for task in members)
        alike = len({task.revision_id for task in members}) != len(members) and not moved
        if alike or len(members) > 2:
            names = ", ".join(sorted(task.meta.id for task in members))
            raise Violation("one task a slot", f"{len(members)} tasks of {place} have not ended: {names}")


def _check_way(before: pb.Service, after: pb.Service) -> None:
    """What was turned back or completed stays so, until another revision is wanted."""
    old, new = before.status.rollout, after.status.rollout
    if old.revision_id != new.revision_id or old.state == new.state:
        return
    if new.state not in _WAYS.get(old.state, frozenset({new.state})):
        words = " to ".join(pb.RolloutState.Name(one.state) for one in (old, new))
        raise Violation("rollouts go one way", f"{kinds.label(after)}: its rollout went from {words}")


def _check_made(objects: Objects, service: pb.Service, task: pb.Task) -> None:
    rollout = service.status.rollout
    if rollout.state in _BACKWARDS and task.revision_id == rollout.revision_id != rollout.stable_revision_id:
        raise Violation("what was refused stays refused", f"task {task.meta.id} was made of a refused revision")
    beside = [
        one
        for one in objects.values()
        if isinstance(one, pb.Task) and tasks.is_live(one) and place_of(one) == place_of(task)
    ]
    if not beside or task.replaces:
        return
    if service.spec.rollout.paused:
        raise Violation("paused is paused", f"task {task.meta.id} was made beside {beside[0].meta.id}")
    everywhere = service.spec.mode == pb.SERVICE_MODE_GLOBAL
    number = sum(isinstance(one, pb.Node) for one in objects.values()) if everywhere else service.spec.replicas
    surge = update_rules.most_beside(service.spec, number)
    doubles = _doubles(objects, service) + 1
    if doubles > surge:
        raise Violation("no more at a time", f"task {task.meta.id} is the {doubles}. beside another; {surge} may be")


def _doubles(objects: Objects, service: pb.Service) -> int:
    """In how many places of a service there are two live tasks, and not because one of them is moved. A global one
    leaves alone what is on a node that takes nothing now, and waits for none of it.
    """
    held = {one.meta.id for one in objects.values() if isinstance(one, pb.Node) and _takes_nothing(one)}
    places: dict[Place, int] = {}
    for one in objects.values():
        mine = isinstance(one, pb.Task) and (one.meta.namespace, one.service) == (
            service.meta.namespace,
            service.meta.name,
        )
        if not mine or not isinstance(one, pb.Task) or one.target_node_id in held:
            continue
        if tasks.is_live(one) and not one.replaces:
            places[place_of(one)] = places.get(place_of(one), 0) + 1
    return sum(number > 1 for number in places.values())


def _takes_nothing(node: pb.Node) -> bool:
    paused = node.spec.availability == pb.AVAILABILITY_PAUSE
    return paused or bool(node.spec.taints) or node.status.state != pb.NODE_STATE_READY


def _check_stopped(objects: Objects, service: pb.Service, before: pb.Task, after: pb.Task) -> None:
    """Where the new one comes first, the old one is not told to stop before the new one works.

    One that makes way for another service's is lost for good reason.
    """
    if after.status.reason == preemption.REASON:
        return
    told = before.desired_state < after.desired_state == pb.DESIRED_STATE_SHUTDOWN
    if not told or not tasks.is_ready(before) or _stops_first(objects, service) or _is_moved(objects, before):
        return
    others = [one for one in objects.values() if isinstance(one, pb.Task) and place_of(one) == place_of(after)]
    if not any(tasks.is_ready(one) for one in others if one.meta.id != after.meta.id):
        raise Violation("nothing is lost", f"task {after.meta.id} was told to stop, and no other works in its place")


def _stops_first(objects: Objects, service: pb.Service) -> bool:
    """Or some may be missing, which `update_rules` counts."""
    if service.spec.update.max_unavailable or service.spec.update.max_surge:
        return update_rules.most_missing(service.spec, service.spec.template, service.spec.replicas) > 0
    if service.spec.update.order:
        return service.spec.update.order == pb.UPDATE_ORDER_STOP_FIRST
    goal = {service.status.revision_id, service.status.rollout.stable_revision_id}
    templates = [one.template for one in objects.values() if isinstance(one, pb.Revision) and one.meta.id in goal]
    taken = [demand.of(template) for template in (service.spec.template, *templates)]
    return any(one.ports or one.generic for one in taken)


def _is_moved(objects: Objects, task: pb.Task) -> bool:
    """People have changed what its node is for, perhaps a moment ago: it may leave."""
    node = next((one for one in objects.values() if isinstance(one, pb.Node) and one.meta.id == task.node_id), None)
    return node is None or node.meta.generation > 1

"""What people ask for in the seeds from `families.PARTICULAR_FROM` on only: updates by amounts, a service that comes to
its end and others that wait for that, neighbours that have to be or must not be, few revisions kept, few moves.

Their wishes can be fulfilled: whoever has to be near to another or apart from it is small, and so is who is kept away.
"""

import random
from collections.abc import Iterable

from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.sim import zones
from tests.support.fake_agent import ONCE

JOB = "job"
"""The service that comes to its end; `api` and `web` may wait for that."""
COMPANION, STRANGER = "api", "db"
"""The services that `web` may have to be near to, and apart from."""

_MISSING = ("1", "2", "25%", "50%", "100%")
_AMOUNTS = (("1", ""), ("25%", "25%"), ("50%", "1"), ("2", "50%"), ("100%", "0"), ("0", "34%"), ("1", "1"))
"""Of `maxSurge` and `maxUnavailable`."""


def make_job(chance: random.Random, spec: pb.ServiceSpec, missing: str) -> None:
    """Makes what was drawn for any service one that ends well in a moment, and is tried again when it fails. `missing`:
    an image with which it does, until somebody puts that right.
    """
    container = spec.template.container
    container.command.append(ONCE)
    container.ClearField("probes")
    if chance.random() < 0.25:
        container.image, container.image_pull_policy = missing, pb.IMAGE_PULL_POLICY_NEVER
    container.resources.CopyFrom(pb.Resources(reservations=pb.ResourceReservations(cpu=100)))
    spec.template.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
    spec.template.ClearField("sidecars")
    spec.template.ClearField("placement")
    spec.replicas = chance.randint(1, 2)


def add(chance: random.Random, name: str, spec: pb.ServiceSpec, *, may_surge: bool) -> None:
    """More wishes, on top of those of every seed. `may_surge`: two tasks of a slot find room, if they take no things
    of nodes.
    """
    add_way(chance, spec, may_surge=may_surge)
    if chance.random() < 0.5:
        spec.revision_history_limit = chance.choice([0, 1, 2])
    if chance.random() < 0.3:
        spec.rebalance.max_moves_per_minute = chance.choice([1, 2])
    if name in {"api", "web"} and chance.random() < 0.3:
        spec.depends_on[JOB] = pb.DEPENDENCY_CONDITION_COMPLETED
    if name == STRANGER:
        _leave_room(spec)
    if name == "web" and chance.random() < 0.5:
        _add_neighbours(chance, spec)


def add_way(chance: random.Random, spec: pb.ServiceSpec, *, may_surge: bool) -> None:
    """Another way in which a new revision can go in."""
    if chance.random() < 0.4:
        _add_amounts(chance, spec, may_surge=may_surge)
    elif chance.random() < 0.4 and may_surge and not _stops_first(spec):
        spec.update.parallelism, spec.update.order = 0, pb.UPDATE_ORDER_START_FIRST  # blue and green


def is_job(service: pb.Service) -> bool:
    """Whether its tasks are to end."""
    return service.spec.template.restart.condition == pb.RESTART_CONDITION_ON_FAILURE


def ended_well(members: Iterable[pb.Task]) -> dict[int, pb.Task]:
    """The last task of each slot in which that has ended well and nothing else is left, by the slot. `members`: all
    tasks of one service.
    """
    slots: dict[int, list[pb.Task]] = {}
    for task in members:
        slots.setdefault(task.slot, []).append(task)
    last = {slot: max(them, key=lambda task: (task.meta.created_at, task.meta.id)) for slot, them in slots.items()}
    return {
        slot: task
        for slot, task in last.items()
        if task.status.state == states.COMPLETE and all(states.is_terminal(one.status.state) for one in slots[slot])
    }


def strangers(template: pb.TaskTemplate, service: str) -> list[str]:
    """The other services that a task must not meet on its node."""
    return [one.service for one in template.placement.apart if not one.weight and one.service != service]


def _add_amounts(chance: random.Random, spec: pb.ServiceSpec, *, may_surge: bool) -> None:
    """In place of `parallelism` and `order`."""
    stops_first = _stops_first(spec)
    spec.update.ClearField("parallelism")
    spec.update.ClearField("order")
    if may_surge and not stops_first:
        spec.update.max_surge, spec.update.max_unavailable = chance.choice(_AMOUNTS)
    else:
        spec.update.max_unavailable = chance.choice(_MISSING)


def _leave_room(spec: pb.ServiceSpec) -> None:
    """The nodes without it have to do for those who must not meet it, and those without them for it."""
    spec.template.placement.ClearField("constraints")
    for one in spec.template.sidecars:
        one.resources.reservations.cpu = 0


def _add_neighbours(chance: random.Random, spec: pb.ServiceSpec) -> None:
    """In place of all else that was wished of nodes, unless half of one is taken."""
    if any(one.resources.reservations.cpu for one in spec.template.sidecars):
        return
    placement = spec.template.placement
    placement.ClearField("constraints")
    placement.ClearField("spread")
    spec.template.container.resources.reservations.CopyFrom(pb.ResourceReservations(cpu=100))
    if chance.random() < 0.5:
        placement.near.add(service=COMPANION, by=zones.BY)
        spec.replicas = min(spec.replicas, 2)
    else:
        placement.apart.add(service=STRANGER)
        spec.replicas = min(spec.replicas, 1)


def _stops_first(spec: pb.ServiceSpec) -> bool:
    generic = spec.template.container.resources.reservations.generic
    return spec.update.order == pb.UPDATE_ORDER_STOP_FIRST or bool(generic)

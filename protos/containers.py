"""The containers of one task: the main one, those that run before it (`init`) and those beside it (`sidecars`).

One rule: the main container goes by the task's own id, and every other one by `<task>.<name>`, so that a task without
others looks the same everywhere. No task's id has a dot in it.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from protos.orch.v1 import objects_pb2 as pb

MAIN: Final = "main"


def others(template: pb.TaskTemplate) -> Iterator[pb.Container]:
    """Every container but the main one, in the order of their starts."""
    yield from template.init
    yield from template.sidecars


def names(template: pb.TaskTemplate) -> tuple[str, ...]:
    """What the containers are called, in the order of their starts."""
    return (*(one.name for one in others(template)), MAIN)


def named(template: pb.TaskTemplate, name: str) -> pb.Container | None:
    """The container of that name; the main one when the name is empty."""
    if name in {"", MAIN}:
        return template.container
    return next((one for one in others(template) if one.name == name), None)


def identity(task_id: str, name: str) -> str:
    """What a node knows the container by: `web-1-x` for the main one, `web-1-x.proxy` for another."""
    return task_id if name in {"", MAIN} else f"{task_id}.{name}"


def split(container_id: str) -> tuple[str, str]:
    """The task's id and the container's name, empty for the main one."""
    task_id, _, name = container_id.partition(".")
    return task_id, name


def reserved(template: pb.TaskTemplate) -> pb.ResourceReservations:
    """What a task needs at the moment when it needs most.

    Init containers run one by one, then the others together: main 100m and sidecar 50m with init 200m → 200m.
    """
    if not template.init and not template.sidecars:
        return template.container.resources.reservations
    together = _sum([template.container, *template.sidecars])
    for one in template.init:
        together = _most(together, one.resources.reservations)
    return together


def _sum(members: Iterable[pb.Container]) -> pb.ResourceReservations:
    total = pb.ResourceReservations()
    for one in members:
        part = one.resources.reservations
        total.cpu += part.cpu
        total.memory += part.memory
        total.pids += part.pids
        total.disk += part.disk
        for name, count in part.generic.items():
            total.generic[name] += count
    return total


def _most(one: pb.ResourceReservations, other: pb.ResourceReservations) -> pb.ResourceReservations:
    names = {*one.generic, *other.generic}
    return pb.ResourceReservations(
        cpu=max(one.cpu, other.cpu),
        memory=max(one.memory, other.memory),
        pids=max(one.pids, other.pids),
        disk=max(one.disk, other.disk),
        generic={name: max(one.generic.get(name, 0), other.generic.get(name, 0)) for name in sorted(names)},
    )

"""What a task takes of its node: the sum over its containers.

The containers beside the main one run with it, so they add up. Those before it (`init`) run one at a time, while the
others do not: they count only where one of them takes more than all the others together.

Example: main 500m and 256Mi, a sidecar 100m and 64Mi, an init container 1 and 128Mi → 1 processor and 320Mi.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protos.orch.v1 import objects_pb2 as pb

HostPort = tuple[int, int]
"""Protocol and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Thousandths of processors, bytes of memory, processes, bytes of disk, things by name, and ports of the node."""

    cpu: int
    memory: int
    pids: int
    disk: int
    generic: Mapping[str, int]
    ports: frozenset[HostPort]


def of(template: pb.TaskTemplate) -> Demand:
    """What each task of the template takes."""
    beside = [template.container, *template.sidecars]
    together = Counter[str]()
    for container in beside:
        together += _generic(container)
    for container in template.init:
        together |= _generic(container)
    return Demand(
        cpu=_most(template, [one.resources.reservations.cpu for one in beside], "cpu"),
        memory=_most(template, [one.resources.reservations.memory for one in beside], "memory"),
        pids=_most(template, [one.resources.reservations.pids for one in beside], "pids"),
        disk=_most(template, [one.resources.reservations.disk for one in beside], "disk"),
        generic=dict(sorted(together.items())),
        ports=host_ports(beside),
    )


def host_ports(containers: Iterable[pb.Container]) -> frozenset[HostPort]:
    """The ports of a node that containers take."""
    return frozenset(
        (port.protocol or pb.PROTOCOL_TCP, port.published)
        for container in containers
        for port in container.ports
        if port.published and port.mode == pb.PUBLISH_MODE_HOST
    )


def _most(template: pb.TaskTemplate, beside: Iterable[int], field: str) -> int:
    first: list[int] = [getattr(one.resources.reservations, field) for one in template.init]
    return max([sum(beside), *first])


def _generic(container: pb.Container) -> Counter[str]:
    return Counter(dict(container.resources.reservations.generic))

"""What a task takes of its node, with all its containers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protos import containers
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
    reserved = containers.reserved(template)
    return Demand(
        cpu=reserved.cpu,
        memory=reserved.memory,
        pids=reserved.pids,
        disk=reserved.disk,
        generic={name: count for name, count in sorted(reserved.generic.items()) if count},
        ports=host_ports([template.container, *template.sidecars]),
    )


def host_ports(members: Iterable[pb.Container]) -> frozenset[HostPort]:
    """The ports of a node that containers take."""
    return frozenset(
        (port.protocol or pb.PROTOCOL_TCP, port.published)
        for container in members
        for port in container.ports
        if port.published and port.mode == pb.PUBLISH_MODE_HOST
    )

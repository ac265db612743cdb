"""A task's place in the network, as values."""

from dataclasses import dataclass

from protos.orch.v1 import objects_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """A port of the node that leads to a port of the task."""

    protocol: pb.Protocol.ValueType
    published: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A task's address, what is published of it, and whose the network is."""

    task_id: str
    address: str
    ports: tuple[PublishedPort, ...] = ()
    root_id: int = 0  # of the users that the network belongs to; 0: the node's


def published_ports(template: pb.TaskTemplate) -> tuple[PublishedPort, ...]:
    """The ports that a template publishes on its node."""
    return tuple(
        PublishedPort(protocol=port.protocol or pb.PROTOCOL_TCP, published=port.published, target=port.target)
        for port in template.container.ports
        if port.published
    )

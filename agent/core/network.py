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
class Addresses:
    """What a task has. Empty: not of that family."""

    address: str = ""
    address6: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A task's addresses, what is published of it, whose the network is, and which service it belongs to."""

    task_id: str
    address: str
    address6: str = ""
    ports: tuple[PublishedPort, ...] = ()
    root_id: int = 0  # of the users that the network belongs to; 0: the node's
    service: str = ""  # `namespace/name`; empty when nobody knows


def published_ports(template: pb.TaskTemplate) -> tuple[PublishedPort, ...]:
    """The ports that a template publishes on its task's node alone; the others are the service's affair."""
    return tuple(
        PublishedPort(protocol=port.protocol or pb.PROTOCOL_TCP, published=port.published, target=port.target)
        for port in template.container.ports
        if port.published and port.mode != pb.PUBLISH_MODE_INGRESS
    )


def service_of(task: pb.Task) -> str:
    """`namespace/name` of a task's service."""
    return f"{task.meta.namespace}/{task.service}" if task.service else ""

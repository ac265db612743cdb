"""Which nodes a global service has a task on. One question, so that every rule about it has one place.

The rule: what passes by itself (a session that was lost, room that is taken) does not count here; only what somebody
decided, about the node or about the service.
"""

from protos.orch.v1 import objects_pb2 as pb


def eligible(service: pb.Service, template: pb.TaskTemplate, node: pb.Node) -> bool:  # noqa: ARG001 - for rules to come
    """Whether the node is one of those that the service is for."""
    return node.spec.availability != pb.AVAILABILITY_DRAIN and _gives_users(template, node)


def _gives_users(template: pb.TaskTemplate, node: pb.Node) -> bool:
    """Only where it is written out: a template that leaves it open runs everywhere."""
    return template.container.userns != pb.USER_NAMESPACE_AUTO or not node.status.description.no_users

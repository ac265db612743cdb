"""What an apply warns of, asked of services among others and some nodes."""

from controlplane.core import warnings
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build


def applied(made: pb.Service, *others: pb.Service, nodes: tuple[pb.Node, ...] = (build.node("n1"),)) -> list[str]:
    """What is told of a service among others, but for its image."""
    services = {kinds.qualified(one): one for one in (made, *others)}
    found = warnings.warnings(made, images=[], empty=warnings.emptied(nodes), services=services)
    return [line for line in found if "has no image" not in line]


def labelled(**labels: str) -> pb.Node:
    node = build.node("n1")
    node.meta.labels.update(labels)
    node.spec.taints.add(key="dedicated")
    return node


def placed(name: str = "web", **wishes: object) -> pb.Service:
    made = build.service(name)
    made.spec.template.placement.CopyFrom(pb.Placement(**wishes))  # type: ignore[arg-type]  # fields by name
    return made

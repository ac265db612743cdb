"""What constraints and spreads may ask of a node, by the names that manifests use."""

from manifests import constraints, placement
from protos.orch.v1 import objects_pb2 as pb

OF_EACH = placement.ONE_NODE | {"node.hostname"}
"""Attributes whose value nearly every node has to itself: to name it in a reason makes it a reason of one node."""


def attribute_of(node: pb.Node, attribute: str) -> str | None:
    """The value of an attribute as constraints name it; None when the node has none."""
    match attribute:
        case "node.name":
            return node.meta.name
        case "node.id":
            return node.meta.id
        case "node.hostname":
            return node.status.description.hostname or None
        case "node.platform":
            return node.status.description.platform or None
        case _:
            return node.meta.labels.get(attribute.removeprefix(constraints.LABELS))

"""What constraints and spreads may ask of a node, by the names that manifests use."""

from manifests import constraints
from protos.orch.v1 import objects_pb2 as pb


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

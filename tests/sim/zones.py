"""The two zones of the simulated nodes: nodes' labels say them, and people ask for them."""

from protos.orch.v1 import objects_pb2 as pb

LABEL = "zone"
BY = f"node.labels.{LABEL}"
ONLY_B = f"{BY} == b"
"""The one constraint on zones that people make."""


def of_number(number: int) -> str:
    """The zone of the first node, of the second one, and so on."""
    return "a" if number <= 2 else "b"


def of(node: pb.Node) -> str:
    """The zone that the node says it is in."""
    return node.meta.labels[LABEL]


def suits(placement: pb.Placement, node: pb.Node) -> bool:
    """Whether the node is in a zone in which the tasks may be."""
    return ONLY_B not in placement.constraints or of(node) == "b"

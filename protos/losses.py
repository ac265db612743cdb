"""What is known of the loss of a node, for everybody who decides by it or shows it."""

from protos.orch.v1 import objects_pb2 as pb

_LOST = frozenset({pb.NODE_STATE_DISCONNECTED, pb.NODE_STATE_DOWN})


def is_lost(node: pb.Node) -> bool:
    """Whether its agent holds no session."""
    return node.status.state in _LOST


def is_final(node: pb.Node) -> bool:
    """Whether a person has said of this very loss that the node does not come back (`orchctl node lost`).

    The wish names the loss by when it began, so that it ends by itself when the node returns: nobody has to take it
    back, and no clocks are compared.
    """
    return is_lost(node) and node.spec.lost_since == node.status.since

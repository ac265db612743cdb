"""Whether a node's agent is only away for a moment: the control plane goes by it, and people are told so."""

from typing import Final

from protos.orch.v1 import objects_pb2 as pb

LONGEST_MS: Final = 600_000
"""An agent that goes in order may announce so much, and no more is believed."""


def is_expected(node: pb.Node) -> bool:
    """Whether its agent has gone in order, has said that it comes back, and is not yet given up.

    A leader of an older release leaves `expected_by` as it is when it calls a node lost again; then it is of an earlier
    absence, and is mostly from before the loss.
    """
    return node.status.state == pb.NODE_STATE_DISCONNECTED and node.status.expected_by > node.status.since

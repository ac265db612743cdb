"""What can be wrong with a service of which no task may ever run twice."""

from collections.abc import Iterator

from manifests import defaults
from manifests.paths import Path
from manifests.problems import Problem
from protos.orch.v1 import objects_pb2 as pb

LEAST_MS = 10_000
"""A change of leaders takes up to 5 s; a node that is cut off for no longer keeps its tasks."""


def problems(spec: pb.ServiceSpec, path: Path) -> Iterator[Problem]:
    """Fenced tasks need time until they are given up, and no second task beside them."""
    if not spec.on_node_loss.fence:
        return
    policy: pb.NodeLossPolicy = defaults.resolve(spec.on_node_loss)
    if policy.replace_after < LEAST_MS:
        yield Problem(
            keys=(*path, "onNodeLoss", "replaceAfter"),
            message="is too short for fenced tasks, which are killed after so long without a leader",
            hint="write replaceAfter: 10s or more",
        )
    if spec.mode == pb.SERVICE_MODE_GLOBAL:
        message = "a global service has one task on each node, and none that takes the place of a lost one"
        yield Problem(keys=(*path, "onNodeLoss", "fence"), message=message, hint="remove fence")
    if spec.update.order == pb.UPDATE_ORDER_START_FIRST:
        message = "two tasks would run in one slot, which `onNodeLoss.fence` excludes"
        yield Problem(keys=(*path, "update", "order"), message=message, hint="write stop-first, or remove fence")
    if spec.update.max_surge.removesuffix("%").strip("0"):
        message = "two tasks would run in one slot, which `onNodeLoss.fence` excludes"
        yield Problem(keys=(*path, "update", "maxSurge"), message=message, hint="write maxUnavailable, or remove fence")

"""What an instance counts as it happens. Whoever does something counts it here; `state_metrics` looks up the rest.

The rule: one registry a process. It holds no state that anything is decided by.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from controlplane.core import plan
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from telemetry import metrics

REGISTRY: Final = metrics.registry()
SCHEDULER: Final = "scheduling"
"""The controller whose writing is looked at more closely."""

RPC_SECONDS: Final = Histogram(
    "orch_rpc_seconds",
    "How long calls took that are answered once, by method and status code",
    ["method", "code"],
    buckets=metrics.SLOW,
    registry=REGISTRY,
)
RPCS: Final = Counter(
    "orch_rpc", "Calls that have ended, streams too, by method and status code", ["method", "code"], registry=REGISTRY
)
RPCS_OPEN: Final = Gauge("orch_rpc_open", "Calls that are being answered, by method", ["method"], registry=REGISTRY)

STORE_SECONDS: Final = Histogram(
    "orch_store_request_seconds",
    "How long etcd took to answer, its raft included, by operation and outcome",
    ["operation", "outcome"],
    buckets=metrics.FAST,
    registry=REGISTRY,
)

CONTROLLER_SECONDS: Final = Histogram(
    "orch_controller_decision_seconds",
    "How long a controller took to decide, without writing it down",
    ["controller"],
    buckets=metrics.FAST,
    registry=REGISTRY,
)
CONTROLLER_CHANGES: Final = Counter(
    "orch_controller_changes", "Objects that a controller has written or removed", ["controller"], registry=REGISTRY
)
CONTROLLER_RETRIES: Final = Counter(
    "orch_controller_retries",
    "Plans that were not stored because the store was away or knew better, and were made again",
    ["controller"],
    registry=REGISTRY,
)
TOO_LARGE: Final = Counter(
    "orch_controller_too_large", "Objects that a controller wanted to write and no commit can hold", registry=REGISTRY
)

DECISIONS: Final = Counter(
    "orch_scheduler_decisions",
    "What the scheduler has written of tasks: assigned to a node, refused with the reasons, or stopped for another",
    ["outcome"],
    registry=REGISTRY,
)
WAITED_SECONDS: Final = Histogram(
    "orch_scheduler_wait_seconds",
    "How long a task was there before it was given a node",
    buckets=metrics.SLOW,
    registry=REGISTRY,
)
ELECTIONS: Final = Counter("orch_leader_terms", "How often this instance has become the leader", registry=REGISTRY)
EVENTS: Final = Counter(
    "orch_events", "Events that were told while this instance was there, by type", ["type"], registry=REGISTRY
)
BLOB_BYTES: Final = Counter(
    "orch_image_served_bytes", "Bytes of images given to nodes and to other instances", registry=REGISTRY
)

for _outcome in ("assigned", "refused", "preempted"):
    DECISIONS.labels(_outcome)
for _type in ("normal", "warning"):
    EVENTS.labels(_type)


@contextlib.contextmanager
def deciding(controller: str) -> Iterator[None]:
    """Counts how long the block takes."""
    began = time.perf_counter()
    try:
        yield
    finally:
        CONTROLLER_SECONDS.labels(controller).observe(time.perf_counter() - began)


def stored(controller: str, made: plan.Plan, now_ms: int) -> None:
    """Counts what a controller has written."""
    CONTROLLER_CHANGES.labels(controller).inc(len(made.changes))
    if controller == SCHEDULER:
        _scheduled(made, now_ms)


def _scheduled(made: plan.Plan, now_ms: int) -> None:
    for change in made.changes:
        task = change.value
        assert isinstance(task, pb.Task), "the scheduler writes tasks"
        if task.status.state == states.ASSIGNED and task.desired_state < pb.DESIRED_STATE_SHUTDOWN:
            DECISIONS.labels("assigned").inc()
            WAITED_SECONDS.observe(max(0, now_ms - task.meta.created_at) / 1000)
        else:
            DECISIONS.labels("refused" if not task.node_id else "preempted").inc()

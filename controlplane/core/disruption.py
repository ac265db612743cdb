"""How many of a service's tasks may be taken away now by what can wait: drains, rebalancing, preemption.

The rule: only places whose work is done count. To take a task that is not ready takes nothing away from anybody, and
of two that work in one place while it is moved, the other goes anyway.

Examples, of 4 replicas: `maxUnavailable: 1`, all ready → 1; one not ready → 0. `minAvailable: 75%`, all ready → 1.
"""

from collections.abc import Collection

from controlplane.core import amounts, places, tasks
from protos.orch.v1 import objects_pb2 as pb

DEFAULT_UNAVAILABLE = 1


def allowed(service: pb.Service | None, members: Collection[pb.Task]) -> int:
    """How many ready tasks of the service may go now. `members`: its tasks. Of a service that is gone or going: all."""
    working = [task for task in members if tasks.is_ready(task)]
    if service is None or service.meta.deleted_at:
        return len(working)
    ready = len(set(map(places.key_of, working)))
    wanted = _wanted(service, members)
    policy = service.spec.disruption
    if policy.min_available:
        return max(0, ready - amounts.of(policy.min_available, wanted, up=True))
    return max(0, spare(policy, wanted) - max(0, wanted - ready))


def may_make_way(service: pb.Service | None, placed: Collection[pb.Task]) -> int:
    """How many ready tasks may go for one of a higher priority. `placed`: those that have a node and have not ended.

    A service without a `disruption` of its own misses one at a time. Its tasks that wait for a node do not count: that
    they wait is what its low priority means, and it is no reason to spare the others.
    """
    if service is None or service.meta.deleted_at or has_own(service.spec.disruption):
        return allowed(service, placed)
    working = set(map(places.key_of, filter(tasks.is_ready, placed)))
    return max(0, DEFAULT_UNAVAILABLE - len(set(map(places.key_of, placed)) - working))


def has_own(policy: pb.DisruptionPolicy) -> bool:
    """Whether somebody has said how many may be missing."""
    return bool(policy.min_available or policy.max_unavailable)


def spare(policy: pb.DisruptionPolicy, wanted: int) -> int:
    """How many of so many tasks may be missing when all others are ready."""
    if policy.min_available:
        return max(0, wanted - amounts.of(policy.min_available, wanted, up=True))
    return amounts.of(policy.max_unavailable, wanted, up=False) if policy.max_unavailable else DEFAULT_UNAVAILABLE


def _wanted(service: pb.Service, members: Collection[pb.Task]) -> int:
    """How many tasks it is to have; a global service as many as it has nodes."""
    if service.spec.mode == pb.SERVICE_MODE_GLOBAL:
        return len({task.target_node_id for task in members if tasks.is_live(task)})
    return service.spec.replicas

"""Gives tasks to nodes. One key for the whole cluster: what one task takes, the next cannot have."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controlplane import metrics
from controlplane.core import locality, plan, scheduler, tasks
from controlplane.store.snapshots import Change, Snapshot
from manifests import networking
from protos import kinds, states
from protos.orch.v1 import objects_pb2 as pb

CLUSTER = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What placement depends on beside what is stored: how it is set up, and which nodes have which blobs now."""

    strategy: scheduler.Strategy = scheduler.Strategy.SPREAD
    holders: Callable[[], locality.Holders] = locality.Holders
    """When nothing is said of them, nobody has anything."""


class Scheduling:
    """Tasks without a node get one, or the reasons why not."""

    name = metrics.SCHEDULER

    def __init__(self, outlook: Outlook) -> None:
        self._outlook = outlook

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:
        match change.after or change.before:
            case pb.Node():
                return [CLUSTER]
            case pb.Task() as task if change.after is None or states.is_terminal(task.status.state):
                return [CLUSTER]  # what it took is free again
            case pb.Task() as task if not task.node_id:
                return [CLUSTER]
            case pb.Task() if _has_moved_on(change) and snapshot.unassigned_tasks():
                return [CLUSTER]  # one that waits may be near to it now, or may have it make way
            case pb.Service() if change.after is None or _has_another_spec(change):
                return [CLUSTER]  # a port that it published may be free again
            case _:
                return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - there is one key
        return [CLUSTER]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - there is one key
        waiting = [task for task in snapshot.unassigned_tasks().values() if tasks.is_live(task)]
        if not waiting:
            return plan.NOTHING
        return scheduler.schedule(
            snapshot.all(pb.Node).values(),
            [task for task in snapshot.all(pb.Task).values() if task.node_id],
            waiting,
            {one.meta.id: one.template for one in snapshot.all(pb.Revision).values()},
            now_ms,
            rules_of(snapshot, self._outlook),
        )

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""


def rules_of(snapshot: Snapshot, outlook: Outlook) -> scheduler.Rules:
    """What services and images have to do with the placement of tasks."""
    services = snapshot.all(pb.Service).values()
    return scheduler.Rules(
        everywhere={
            networking.published_key(port): kinds.label(service)
            for service in services
            for port in service.spec.template.container.ports
            if port.published and networking.mode_of(port) == pb.PUBLISH_MODE_INGRESS
        },
        services={(one.meta.namespace, one.meta.name): one for one in services},
        strategy=outlook.strategy,
        stock=locality.Stock(
            images_of={one.meta.id: frozenset(one.images.values()) for one in snapshot.all(pb.Revision).values()},
            images={one.status.digest: one.status for one in snapshot.all(pb.Image).values()},
            holders=outlook.holders(),
        ),
    )


def _has_moved_on(change: Change) -> bool:
    """A task was given a node, became ready or is so no more, or was told to stop."""
    before, after = change.before, change.after
    if not isinstance(before, pb.Task) or not isinstance(after, pb.Task):
        return False
    return (before.node_id, before.status.ready, before.desired_state) != (
        after.node_id,
        after.status.ready,
        after.desired_state,
    )


def _has_another_spec(change: Change) -> bool:
    before, after = change.before, change.after
    return before is not None and after is not None and before.meta.generation != after.meta.generation

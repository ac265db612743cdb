"""Gives tasks to nodes. One key for the whole cluster: what one task takes, the next cannot have."""

from collections.abc import Iterable

from controlplane.core import plan, scheduler, tasks
from controlplane.store.snapshots import Change, Snapshot
from protos import states
from protos.orch.v1 import objects_pb2 as pb

CLUSTER = "cluster"


class Scheduling:
    """Tasks without a node get one, or the reasons why not."""

    name = "scheduling"

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - the change says it all
        match change.after or change.before:
            case pb.Node():
                return [CLUSTER]
            case pb.Task() as task if change.after is None or states.is_terminal(task.status.state):
                return [CLUSTER]  # what it took is free again
            case pb.Task() as task if not task.node_id:
                return [CLUSTER]
            case _:
                return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - there is one key
        return [CLUSTER]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - there is one key
        waiting = [task for task in snapshot.unassigned_tasks().values() if tasks.is_live(task)]
        if not waiting:
            return plan.NOTHING
        templates = {one.meta.id: one.template for one in snapshot.all(pb.Revision).values()}
        placed = [task for task in snapshot.all(pb.Task).values() if task.node_id]
        return scheduler.schedule(snapshot.all(pb.Node).values(), placed, waiting, templates, now_ms)

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""

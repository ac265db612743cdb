"""Lets tasks start that were held for other services. One key a service, `<namespace>/<service>`."""

from collections.abc import Iterable

from controlplane.core import dependencies, plan
from controlplane.store.snapshots import Change, Snapshot
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb


class Dependencies:
    """A service's key stands for it and for all that depend on it: whoever waits is looked for when something comes."""

    name = "dependencies"

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - the change says it all
        match change.after or change.before:
            case pb.Service() as service:
                return [kinds.qualified(service)]
            case pb.Task() as task if change.after is not None and task.desired_state == pb.DESIRED_STATE_READY:
                return [kinds.service_of(task)]
            case _:
                return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        return [kinds.qualified(one) for one in snapshot.all(pb.Service).values()]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - it has no clock
        # One that depends on nothing any more may have tasks that are still held.
        concerned = (one for one in snapshot.all(pb.Service).values() if _is_of(one, keys))
        return plan.join(
            plan.Plan(
                changes=tuple(
                    dependencies.let_go(
                        snapshot.tasks_of(one.meta.namespace, one.meta.name).values(), waits_for(one, snapshot)
                    )
                )
            )
            for one in concerned
        )

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""


def waits_for(service: pb.Service, snapshot: Snapshot) -> str:
    """What holds the new tasks of a service; empty when nothing does."""
    namespace = service.meta.namespace
    others = {
        name: dependencies.Other(
            service=snapshot.get(pb.Service, name, namespace=namespace),
            tasks=snapshot.tasks_of(namespace, name).values(),
        )
        for name in service.spec.depends_on
    }
    return dependencies.waits_for(service, others)


def _is_of(service: pb.Service, keys: frozenset[str]) -> bool:
    """Whether the service or one that it depends on is among them."""
    namespace = service.meta.namespace
    return any(f"{namespace}/{name}" in keys for name in (service.meta.name, *service.spec.depends_on))

"""Situations in which tasks may be moved, and what is decided in them."""

from collections.abc import Iterable

from controlplane.core import rebalance, scheduler
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

LONG_AGO = NOW_MS - 3_600_000


def settled(name: str = "web", replicas: int = 6) -> pb.Service:
    """A service in which everything is as asked."""
    service = build.service(name, replicas=replicas)
    service.status.settled, service.status.observed_generation = True, 1
    service.status.rollout.state = pb.ROLLOUT_STATE_COMPLETED
    return service


def on(homes: Iterable[str], of: str = "web") -> list[pb.Task]:
    """A task in each slot, on these nodes."""
    revision_id = build.revision(build.service(of)).meta.id
    return [
        build.task(slot, of=of, node=home, revision_id=revision_id, created_at=LONG_AGO)
        for slot, home in enumerate(homes, start=1)
    ]


def three(**changes: int) -> list[pb.Node]:
    """Nodes that have been there for long, but for those that are named with when they came."""
    return [build.node(name, since=changes.get(name, LONG_AGO)) for name in ("n1", "n2", "n3")]


def situation(
    services: Iterable[pb.Service], members: Iterable[pb.Task], nodes: Iterable[pb.Node], **more: object
) -> rebalance.Situation:
    services = list(services)
    rules = scheduler.Rules(services={(one.meta.namespace, one.meta.name): one for one in services})
    revisions = {one.meta.id: one for one in map(build.revision, services)}
    arguments = {"rules": rules, "per_minute": 6, "now_ms": NOW_MS} | more
    return rebalance.Situation(nodes=list(nodes), tasks=list(members), revisions=revisions, **arguments)  # type: ignore[arg-type]  # fields by name


def decided(given: rebalance.Situation) -> tuple[list[pb.Task], int | None]:
    made = rebalance.decide(given, build.suffixes())
    return [change.value for change in made.changes if isinstance(change.value, pb.Task)], made.wake_at

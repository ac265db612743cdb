"""Spreads services again when nodes have come, or many replicas have gone. One key for the whole cluster."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from controlplane.controllers import dependencies, scheduling
from controlplane.core import plan, rebalance
from controlplane.store.snapshots import Change, Snapshot
from protos.orch.v1 import objects_pb2 as pb

CLUSTER = "cluster"


class Rebalancing:
    """A few tasks move, so many a minute."""

    name = "rebalancing"

    def __init__(self, suffixes: Iterator[str], outlook: scheduling.Outlook, per_minute: int) -> None:
        self._suffixes, self._outlook, self._per_minute = suffixes, outlook, per_minute

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - the change says it all
        match change.after or change.before:
            case pb.Node():
                return [CLUSTER]
            case pb.Service() as service if service.status.settled:
                return [CLUSTER]
            case _:
                return []

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - there is one key
        return [CLUSTER]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:  # noqa: ARG002 - there is one key
        return rebalance.decide(situation_of(snapshot, self._outlook, self._per_minute, now_ms), self._suffixes)

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""


def situation_of(
    snapshot: Snapshot, outlook: scheduling.Outlook, per_minute: int, now_ms: int, *, patient: bool = True
) -> rebalance.Situation:
    """Everything that there is, but for services whose new tasks would be held."""
    rules = scheduling.rules_of(snapshot, outlook)
    free = {key: one for key, one in rules.services.items() if not dependencies.waits_for(one, snapshot)}
    return rebalance.Situation(
        nodes=snapshot.all(pb.Node).values(),
        tasks=snapshot.all(pb.Task).values(),
        revisions={one.meta.id: one for one in snapshot.all(pb.Revision).values()},
        rules=replace(rules, services=free),
        per_minute=per_minute,
        now_ms=now_ms,
        patient=patient,
    )

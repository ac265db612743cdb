"""Deletes services whose time is over. One key a service, `<namespace>/<service>`."""

from collections.abc import Iterable

from controlplane.core import expiry, lookup, plan
from controlplane.store.snapshots import Change, Snapshot
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb


class Expiry:
    """Only services that have a `ttl` are looked at."""

    name = "expiry"

    def keys_of(self, change: Change, snapshot: Snapshot) -> Iterable[str]:  # noqa: ARG002 - the change says it all
        after, before = change.after, change.before
        if not isinstance(after, pb.Service) or not after.spec.ttl:
            return []
        same = isinstance(before, pb.Service) and before.meta.generation == after.meta.generation
        return [] if same else [kinds.qualified(after)]

    def all_keys(self, snapshot: Snapshot) -> Iterable[str]:
        return [kinds.qualified(one) for one in snapshot.all(pb.Service).values() if one.spec.ttl]

    def decide(self, snapshot: Snapshot, keys: frozenset[str], now_ms: int) -> plan.Plan:
        found = (lookup.service_at(snapshot, key) for key in sorted(keys))
        return plan.join(expiry.expire(one, now_ms) for one in found if one is not None)

    def done(self, keys: frozenset[str]) -> None:
        """Nobody waits for it."""

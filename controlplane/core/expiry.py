"""The end of services that were made for a while: `ttl` after they were made, they are deleted.

The rule: it is the wish that was applied with them, carried out once, as if its owner had asked for it in that moment.
"""

from controlplane.core import edits, plan
from protos.orch.v1 import objects_pb2 as pb


def expire(service: pb.Service, now_ms: int) -> plan.Plan:
    """The service marked as deleted when its time is over; else when to look again."""
    if service.meta.deleted_at or not service.spec.ttl:
        return plan.NOTHING
    over_at = service.meta.created_at + service.spec.ttl
    if now_ms < over_at:
        return plan.Plan(wake_at=over_at)
    return plan.Plan(changes=(plan.Write(value=edits.mark_deleted(service, now_ms=now_ms), why="its ttl is over"),))

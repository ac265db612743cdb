"""Which revision a service is at. A changed template makes a new one; everything else leaves it."""

from collections.abc import Collection

from controlplane.core import plan
from manifests import defaults
from protos.orch.v1 import objects_pb2 as pb

HISTORY = 10
"""Revisions that are kept although no task runs them."""


def latest(revisions: Collection[pb.Revision]) -> pb.Revision | None:
    return max(revisions, key=lambda revision: revision.number, default=None)


def current(service: pb.Service, revisions: Collection[pb.Revision], now_ms: int) -> tuple[pb.Revision, bool]:
    """The revision that the service's spec asks for, and whether it is new.

    What the user wrote is compared, not what it resolves to: an upgrade that changes a default replaces no task.
    """
    newest = latest(revisions)
    if newest is not None and newest.written == service.spec.template:
        return newest, False
    number = newest.number + 1 if newest is not None else 1
    name = f"{service.meta.name}-{number}"
    meta = pb.Meta(
        # The service's id is part of the revision's: a service that is made again under its old name starts anew.
        id=f"{name}-{service.meta.id}",
        name=name,
        namespace=service.meta.namespace,
        stack=service.meta.stack,
        generation=1,
        created_at=now_ms,
        updated_at=now_ms,
    )
    template = service.spec.template
    made = pb.Revision(meta=meta, service=service.meta.name, number=number, written=template)
    made.template.CopyFrom(defaults.resolve(template))
    return made, True


def outdated(revisions: Collection[pb.Revision], in_use: Collection[str]) -> list[plan.Remove]:
    """Revisions that no task runs and that are older than the last HISTORY ones."""
    oldest_first = sorted(revisions, key=lambda revision: revision.number)
    return [
        plan.Remove(value=revision, why=f"older than the last {HISTORY} and not in use")
        for revision in oldest_first[:-HISTORY]
        if revision.meta.id not in in_use
    ]

"""Which revision a service is at, and what became of each.

A changed template makes a new one; everything else leaves it. A template that was there before gets its old revision
again, so that `undo` goes back to the very tasks of it; one whose `web:1` means another image now is another template.
`number` therefore says which was made first, and the history is in the order in which they were rolled out last.

    apply a → 1    apply b → 2    undo → 1 again, rolled out after 2    undo → 2    apply c → 3

What a revision changes is told to everybody who may read the history: values that may be passwords stay out of it.
"""

from collections.abc import Collection, Iterator

from controlplane.core import pins, plan, rollout
from manifests import defaults, diff
from protos.orch.v1 import objects_pb2 as pb

MAX_CHANGES = 8
"""Lines of what a revision changes that are kept."""


def present(service: pb.Service, revisions: Collection[pb.Revision]) -> pb.Revision | None:
    """The revision whose tasks the service is to have, as its leader has decided; None before it has any."""
    by_id = {revision.meta.id: revision for revision in revisions}
    status = service.status
    backwards = status.rollout.state in rollout.BACKWARDS
    found = by_id.get(status.rollout.stable_revision_id if backwards else status.revision_id)
    return found or max(revisions, key=order, default=None)


def order(revision: pb.Revision) -> tuple[int, int]:
    """Their order in the history: by when they were rolled out last."""
    return revision.rolled_out_at, revision.number


def existing(spec: pb.ServiceSpec, revisions: Collection[pb.Revision]) -> pb.Revision | None:
    """The revision that the spec asks for, if it was made before."""
    equal = (one for one in revisions if one.written == spec.template and one.restarted_at == spec.restarted_at)
    return max((one for one in equal if dict(one.images) == dict(spec.images)), key=order, default=None)


def current(service: pb.Service, revisions: Collection[pb.Revision], now_ms: int) -> tuple[pb.Revision, bool]:
    """The revision that the service's spec asks for, and whether it is new.

    What the user wrote is compared, not what it resolves to: an upgrade that changes a default replaces no task.
    """
    spec = service.spec
    there = existing(spec, revisions)
    if there is not None:
        return there, False
    number = max((revision.number for revision in revisions), default=0) + 1
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
    made = pb.Revision(
        meta=meta,
        service=service.meta.name,
        number=number,
        written=spec.template,
        template=defaults.resolve(spec.template),
        restarted_at=spec.restarted_at,
        image_digest=spec.images.get(spec.template.container.image, ""),
        images=spec.images,
        changes=_changes(present(service, revisions), spec),
    )
    return made, True


def _changes(before: pb.Revision | None, spec: pb.ServiceSpec) -> list[str]:
    if before is None:
        return []
    lines = [*diff.discreet_changes(before.written, spec.template), *pins.moved(before.images, spec.images)]
    if not lines and before.restarted_at != spec.restarted_at:
        return ["restarted"]
    more = len(lines) - MAX_CHANGES
    return [*lines[:MAX_CHANGES], *([f"and {more} more"] if more > 0 else [])]


def annotated(
    service: pb.Service, target: pb.Revision, revisions: Collection[pb.Revision], status: pb.RolloutStatus
) -> Iterator[pb.Revision]:
    """The revisions of which there is something new to say. `target` comes first, when it is among them."""
    told = plan.copy(target)
    told.outcome, told.failed = _outcome(status, service.spec.rollout), status.failed
    if target.rolled_out_at != status.began_at:
        told.rolled_out_at = status.began_at
        told.asked_by = service.spec.rollout.asked_by
    if told != target:
        yield told
    for other in revisions:
        # One that failed stays so: that another was asked for afterwards is what is to be expected.
        if other.meta.id != target.meta.id and other.outcome == pb.REVISION_OUTCOME_ROLLING:
            superseded = plan.copy(other)
            good = other.meta.id == status.stable_revision_id
            superseded.outcome = pb.REVISION_OUTCOME_COMPLETED if good else pb.REVISION_OUTCOME_SUPERSEDED
            yield superseded


def _outcome(status: pb.RolloutStatus, control: pb.RolloutControl) -> pb.RevisionOutcome.ValueType:
    if status.state == rollout.COMPLETED:
        return pb.REVISION_OUTCOME_COMPLETED
    if status.state in rollout.BACKWARDS:
        aborted = control.aborted_revision_id == status.revision_id
        return pb.REVISION_OUTCOME_ABORTED if aborted else pb.REVISION_OUTCOME_ROLLED_BACK
    failed = status.state in rollout.STOPPED and status.reason
    return pb.REVISION_OUTCOME_FAILED if failed else pb.REVISION_OUTCOME_ROLLING


def outdated(service: pb.Service, revisions: Collection[pb.Revision], in_use: Collection[str]) -> list[plan.Remove]:
    """Revisions that no task runs, beyond the number of those that are kept."""
    spec: pb.ServiceSpec = defaults.resolve(service.spec)
    limit, status = spec.revision_history_limit, service.status
    needed = {status.revision_id, status.rollout.revision_id, status.rollout.stable_revision_id}
    newest = max(revisions, key=lambda revision: revision.number, default=None)
    unused = [
        revision
        for revision in sorted(revisions, key=order)
        if revision is not newest and revision.meta.id not in needed and revision.meta.id not in in_use
    ]
    old = unused[: max(len(unused) - limit, 0)]
    return [plan.Remove(value=one, why=f"older than the last {limit} that are kept, and not in use") for one in old]

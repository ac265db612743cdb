"""Which images every control plane keeps: those that have a name, and those that a service may still start.

A revision is kept as long as a task runs it or `undo` may go back to it, so revisions are all that has to be asked.

    web:1 → a, then pushed again → b; revision 1 of `web` means a, and nobody has been applied since: a and b stay
"""

from controlplane.store.snapshots import Change, Snapshot
from protos.orch.v1 import objects_pb2 as pb


def wanted(snapshot: Snapshot) -> frozenset[str]:
    """Digests of manifests."""
    named = {image.status.digest for image in snapshot.all(pb.Image).values()}
    settled = {digest for one in snapshot.all(pb.Revision).values() for digest in one.images.values()}
    asked = {digest for one in snapshot.all(pb.Service).values() for digest in one.spec.images.values()}
    return frozenset(named | settled | asked)


def digests(change: Change) -> tuple[frozenset[str], frozenset[str]]:
    """What the object meant before and means after the change."""
    return _of(change.before), _of(change.after)


def _of(value: object) -> frozenset[str]:
    match value:
        case pb.Image():
            return frozenset({value.status.digest})
        case pb.Revision():
            return frozenset(value.images.values())
        case pb.Service():
            return frozenset(value.spec.images.values())
        case _:
            return frozenset()

"""Which images every control plane keeps: those that have a name, and those that a service may still start.

A revision is kept as long as a task runs it or `undo` may go back to it, so revisions are all that has to be asked.

    web:1 → a, then pushed again → b; revision 1 of `web` means a, and nobody has been applied since: a and b stay
"""

from collections.abc import Iterator

from controlplane.store.snapshots import Change, Snapshot
from images import reference
from protos.orch.v1 import objects_pb2 as pb


def wanted(snapshot: Snapshot) -> frozenset[str]:
    """Digests of manifests that stay where they are here."""
    return frozenset(_named(snapshot) | {digest for _, digest in _settled(snapshot)})


def whole(snapshot: Snapshot) -> frozenset[str]:
    """Those that every instance has to have: images of registries come from there."""
    own = {digest for text, digest in _settled(snapshot) if not reference.names_registry(text)}
    return frozenset(_named(snapshot) | own)


def _named(snapshot: Snapshot) -> set[str]:
    return {image.status.digest for image in snapshot.all(pb.Image).values()}


def _settled(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Images as templates name them, and what they mean."""
    for one in snapshot.all(pb.Revision).values():
        yield from one.images.items()
    for service in snapshot.all(pb.Service).values():
        yield from service.spec.images.items()


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

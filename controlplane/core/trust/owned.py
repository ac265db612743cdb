"""Which images a node may have: those of the tasks that were given to it, and no others.

The rule: a task that has ended counts as long as it is there; what a node has had once, it can have kept anyway.
"""

from collections.abc import Iterator

from controlplane.core import image_names, pins
from controlplane.store.snapshots import Snapshot
from images import errors as image_errors
from protos.orch.v1 import objects_pb2 as pb


def digests(state: Snapshot, node_id: str) -> frozenset[str]:
    """The manifests of the images that its tasks run: what their revisions have settled, else what names mean now."""
    known = pins.Known.of(state.all(pb.Image).values())
    return frozenset(settled or known.find(text) for text, settled in _run(state, node_id)) - {""}


def may_have(state: Snapshot, node_id: str, reference: str) -> bool:
    """Whether one of its tasks needs what is called so."""
    try:
        called = _called(reference)
    except image_errors.InvalidReference:
        return False
    # The API has checked what tasks run; what is none nevertheless is had by nobody.
    texts = (text for text, _ in _run(state, node_id) if image_names.is_reference(text))
    return any(not called.isdisjoint(_called(text)) for text in texts)


def _called(reference: str) -> frozenset[str]:
    """As the cluster calls it: `hello:1`, and its digest when it is named by one. Raises InvalidReference."""
    digest = image_names.digest_of(reference)
    return frozenset({image_names.canonical(reference)} | ({digest} if digest is not None else set()))


def _run(state: Snapshot, node_id: str) -> Iterator[tuple[str, str]]:
    """The images of its tasks as templates name them, each with the digest that was settled; empty: none was."""
    revisions = {(task.revision_id, task.meta.namespace) for task in state.tasks_on(node_id).values()}
    for revision_id, namespace in revisions:
        revision = state.get(pb.Revision, revision_id, namespace=namespace)
        if revision is not None:
            for container in pins.each(revision.template):
                yield container.image, revision.images.get(container.image, "")

"""Which images a node may have: those of the tasks that were given to it, and no others.

The rule: a task that has ended counts as long as it is there; what a node has had once, it can have kept anyway.
"""

from controlplane.core import image_names
from controlplane.store.snapshots import Snapshot
from images import errors as image_errors
from protos import containers
from protos.orch.v1 import objects_pb2 as pb


def images(state: Snapshot, node_id: str) -> frozenset[str]:
    """As the cluster calls them: `hello:1`, and the digests of those that are named by one."""
    names: set[str] = set()
    for revision_id, namespace in {
        (task.revision_id, task.meta.namespace) for task in state.tasks_on(node_id).values()
    }:
        revision = state.get(pb.Revision, revision_id, namespace=namespace)
        if revision is not None:
            names.update(_named(revision.template))
    return frozenset(names)


def may_have(state: Snapshot, node_id: str, reference: str) -> bool:
    """Whether one of its tasks needs what is called so."""
    try:
        called = {image_names.canonical(reference), image_names.digest_of(reference)}
    except image_errors.InvalidReference:
        return False
    return not called.isdisjoint(images(state, node_id))


def _named(template: pb.TaskTemplate) -> set[str]:
    found: set[str] = set()
    for container in (template.container, *containers.others(template)):
        try:
            found.add(image_names.canonical(container.image))
            digest = image_names.digest_of(container.image)
        except image_errors.InvalidReference:
            continue  # the API refuses those; one that is there nevertheless is had by nobody
        if digest is not None:
            found.add(digest)
    return found

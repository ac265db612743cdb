"""Which images a node may have."""

from collections.abc import Mapping

from controlplane.core.trust import owned
from controlplane.store import snapshots
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb

SECRET = "sha256:secret"


def snapshot(image: str, settled: Mapping[str, str]) -> snapshots.Snapshot:
    """Node `n1` has a task of this image; the cluster has web:1, which was pushed anew since, and another's image."""
    revision = pb.Revision(meta=pb.Meta(id="r1", name="r1", namespace="default"), service="web", images=settled)
    revision.template.container.image = image
    task = pb.Task(meta=pb.Meta(id="t1", name="t1", namespace="default"), revision_id="r1", node_id="n1")
    images = [
        pb.Image(meta=pb.Meta(name="web:1"), status=pb.ImageStatus(digest="sha256:new")),
        pb.Image(meta=pb.Meta(name="secret:1"), status=pb.ImageStatus(digest=SECRET)),
    ]
    editor = snapshots.Editor()
    for value in (revision, task, *images):
        editor.replace(kinds.of(value), kinds.key(value), value)
    return editor.snapshot()


def test_a_node_may_have_what_the_revisions_of_its_tasks_have_settled() -> None:
    """And not what the name means by now, nor what others run."""
    state = snapshot("web:1", {"web:1": "sha256:old"})
    assert owned.digests(state, "n1") == {"sha256:old"}
    assert owned.digests(state, "n2") == frozenset()


def test_what_was_not_settled_is_what_its_name_means_now() -> None:
    """A name of a registry that nobody was able to ask means nothing here."""
    assert owned.digests(snapshot("web:1", {}), "n1") == {"sha256:new"}
    assert owned.digests(snapshot("registry.lan/db:1", {}), "n1") == frozenset()


def test_a_node_may_ask_what_a_name_means_that_its_tasks_use_and_no_other() -> None:
    """However it is written: with the tag that a name without one means, or with a registry that means the cluster."""
    state = snapshot("web:1", {"web:1": "sha256:old"})
    assert owned.may_have(state, "n1", "web:1")
    assert owned.may_have(state, "n1", "docker.io/library/web:1")
    assert not owned.may_have(state, "n1", "web")
    assert not owned.may_have(state, "n1", "secret:1")
    assert not owned.may_have(state, "n2", "web:1")
    assert not owned.may_have(state, "n1", "no reference at all")

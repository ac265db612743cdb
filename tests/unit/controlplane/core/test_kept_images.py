"""What every control plane keeps, and what it need not fetch."""

from controlplane.core import kept_images
from controlplane.store import snapshots
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb


def test_names_and_revisions_keep_images_and_those_of_registries_are_fetched_from_there() -> None:
    named = pb.Image(meta=pb.Meta(name="web:1"), status=pb.ImageStatus(digest="sha256:new"))
    revision = pb.Revision(meta=pb.Meta(id="web-1", name="web-1", namespace="default"), service="web")
    revision.images.update({"web:1": "sha256:old", "registry.lan/db:1": "sha256:elsewhere"})
    editor = snapshots.Editor()
    for value in (named, revision):
        editor.replace(kinds.of(value), kinds.key(value), value)
    snapshot = editor.snapshot()
    assert kept_images.wanted(snapshot) == {"sha256:new", "sha256:old", "sha256:elsewhere"}
    assert kept_images.whole(snapshot) == {"sha256:new", "sha256:old"}
    change = snapshots.Change(kind=kinds.of(revision), key=kinds.key(revision), before=revision, after=None)
    assert kept_images.digests(change) == ({"sha256:old", "sha256:elsewhere"}, frozenset())

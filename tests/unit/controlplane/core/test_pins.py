"""What the images of a service mean is settled when it is applied, and never in between."""

import pytest

from controlplane.core import apply, pins, revisions, rollout_edits
from controlplane.core import request_errors as errors
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

OLD, NEW = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
BEFORE = pins.Known(digests={"web:latest": OLD})
AFTER = pins.Known(digests={"web:latest": NEW})


def service(image: str = "web", **container: object) -> pb.Service:
    template = pb.TaskTemplate(container=pb.Container(image=image, **container))  # type: ignore[arg-type]
    return pb.Service(meta=pb.Meta(name="web", namespace="default"), spec=pb.ServiceSpec(template=template))


def applied(wanted: pb.Service, known: pins.Known, there: pb.Service | None = None) -> apply.Result:
    existing = {apply.identity(there): there} if there is not None else {}
    decision = apply.decide(existing, apply.prepare([wanted]), images=known, now_ms=9, new_id=lambda: "id")
    return decision.results[0]


def stored(known: pins.Known, image: str = "web") -> pb.Service:
    after = applied(service(image), known).after
    assert isinstance(after, pb.Service)
    return after


def refusal(wanted: pb.Service, known: pins.Known) -> errors.RequestError:
    with pytest.raises(errors.Invalid) as raised:
        applied(wanted, known)
    return raised.value


def test_a_tag_that_moves_is_a_change_at_the_next_apply_and_says_so() -> None:
    there = stored(BEFORE)
    assert dict(there.spec.images) == {"web": OLD}
    again = applied(service(), BEFORE, there)
    assert again.action == api.APPLY_ACTION_UNCHANGED
    moved = applied(service(), AFTER, there)
    assert moved.action == api.APPLY_ACTION_CHANGED
    assert moved.changes == ("image web: aaaaaaaaaaaa → bbbbbbbbbbbb",)
    assert isinstance(moved.after, pb.Service)
    assert dict(moved.after.spec.images) == {"web": NEW}


def test_another_meaning_is_another_revision_and_undo_brings_the_first_one_back() -> None:
    there = stored(BEFORE)
    first, _ = revisions.current(there, [], 1)
    assert (first.image_digest, dict(first.images)) == (OLD, {"web": OLD})
    moved = applied(service(), AFTER, there).after
    assert isinstance(moved, pb.Service)
    second, is_new = revisions.current(moved, [first], 2)
    assert is_new
    assert second.image_digest == NEW
    undone, _ = rollout_edits.change(
        moved,
        api.ROLLOUT_ACTION_UNDO,
        rollout_edits.Wish(known=[first, second], revision=1, asked_by="ann", now_ms=3),
    )
    assert dict(undone.spec.images) == {"web": OLD}
    assert revisions.current(undone, [first, second], 4) == (first, False)


def test_a_digest_means_itself() -> None:
    assert dict(stored(BEFORE, f"web@{OLD}").spec.images) == {f"web@{OLD}": OLD}
    assert "has no image" in refusal(service(f"web@{NEW}"), BEFORE).message


def test_an_unknown_image_is_refused_with_what_was_probably_meant() -> None:
    error = refusal(service("wbe"), BEFORE)
    assert error.message == "Service default/web: spec.template.container.image: the cluster has no image wbe"
    assert error.hint.startswith('did you mean "web"? `orchctl image push wbe` sends it')


def test_an_image_that_only_nodes_have_is_taken_when_the_manifest_says_so() -> None:
    after = applied(service("local", image_pull_policy=pb.IMAGE_PULL_POLICY_NEVER), BEFORE).after
    assert isinstance(after, pb.Service)
    assert not after.spec.images


@pytest.mark.parametrize("image", ["web", "registry.lan:5000/team/web:1"])
def test_what_is_never_fetched_is_never_settled(image: str) -> None:
    """Whoever has loaded it by hand has another digest under that name, or an older one."""
    known = pins.Known(digests={"web:latest": OLD}, elsewhere={"registry.lan:5000/team/web:1": NEW})
    never = service(image, image_pull_policy=pb.IMAGE_PULL_POLICY_NEVER)
    assert pins.of_registries([never], pins.Known(digests={})) == frozenset()
    for there in (None, stored(known, image)):
        after = applied(never, known, there).after
        assert isinstance(after, pb.Service)
        assert not after.spec.images
    never.spec.template.sidecars.add(name="b", image=image)
    after = applied(never, known).after
    assert isinstance(after, pb.Service)
    assert set(after.spec.images) == {image}, "another container of the service may fetch it"


def test_an_image_that_left_the_cluster_stays_what_it_was_for_who_runs_it() -> None:
    there = stored(BEFORE)
    wanted = service()
    wanted.spec.replicas = 3
    after = applied(wanted, pins.Known(digests={}), there).after
    assert isinstance(after, pb.Service)
    assert (after.spec.replicas, dict(after.spec.images)) == (3, {"web": OLD})


def test_an_image_of_a_registry_is_taken_and_settled_when_its_registry_has_told() -> None:
    image = "registry.lan:5000/team/web:1"
    told = pins.Known(digests={}, elsewhere={image: NEW})
    assert pins.of_registries([service(image), service("web")], BEFORE) == {image}
    assert dict(stored(told, image).spec.images) == {image: NEW}
    assert not stored(BEFORE, image).spec.images, "the nodes ask when they start a task"
    mine = pins.Known(digests={image: OLD}, elsewhere={image: NEW})
    assert dict(stored(mine, image).spec.images) == {image: OLD}, "the cluster's own comes first"

"""What an apply decides, as values in and values out."""

import itertools

import pytest

from controlplane.core import apply, lifetime, pins
from controlplane.core import request_errors as errors
from protos import kinds
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb

NOW_MS = 1_700_000_000_000


def service(name: str = "web", *, image: str = "hello:1", replicas: int | None = None, **meta: object) -> pb.Service:
    spec = pb.ServiceSpec(template=pb.TaskTemplate(container=pb.Container(image=image)), replicas=replicas)
    return pb.Service(meta=pb.Meta(name=name, **meta), spec=spec)  # type: ignore[arg-type]


def stored(value: kinds.StoredObject, *, version: int = 7) -> kinds.StoredObject:
    """As it is after an apply to an empty cluster, and what the system adds later."""
    result = decide([value]).results[0].after
    result.meta.version = version
    if isinstance(result, pb.Service):
        result.status.running = 3
    return result


IMAGES = pins.Known(digests={f"hello:{tag}": f"sha256:{tag:064}" for tag in ("1", "2", "3", "latest")})


def decide(
    wanted: list[kinds.StoredObject],
    *existing: kinds.StoredObject,
    now_ms: int = NOW_MS,
    images: pins.Known = IMAGES,
) -> apply.Decision:
    numbers = itertools.count(1)
    there = {apply.identity(value): value for value in existing}
    return apply.decide(
        there, apply.prepare(wanted), images=images, now_ms=now_ms, new_id=lambda: f"id-{next(numbers)}"
    )


def test_a_new_service_gets_an_id_a_generation_and_one_replica() -> None:
    result = decide([service()]).results[0]
    assert result.action == api.APPLY_ACTION_CREATED
    assert isinstance(result.after, pb.Service)
    assert result.after.spec.replicas == 1
    assert result.after.meta == pb.Meta(
        id="id-1", name="web", namespace="default", generation=1, created_at=NOW_MS, updated_at=NOW_MS
    )


def test_zero_replicas_are_a_number_that_was_given() -> None:
    after = decide([service(replicas=0)]).results[0].after
    assert isinstance(after, pb.Service)
    assert after.spec.HasField("replicas")
    assert after.spec.replicas == 0


def test_applying_the_same_again_writes_nothing() -> None:
    decision = decide([service(replicas=3)], stored(service(replicas=3)), now_ms=NOW_MS + 1)
    assert decision.changes == ()
    assert decision.results[0].action == api.APPLY_ACTION_UNCHANGED


DAY_MS = 86_400_000


def for_a_while(ttl_ms: int) -> pb.Service:
    made = service()
    made.spec.ttl = ttl_ms
    return made


def test_a_ttl_that_is_over_already_is_refused() -> None:
    """The service would be deleted at once, which `delete` is for. One that stays as it is changes nothing."""
    there = stored(for_a_while(DAY_MS))
    with pytest.raises(errors.NotNow, match="3d ago, so that this would delete it at once") as refused:
        decide([for_a_while(3 * DAY_MS)], there, now_ms=NOW_MS + 3 * DAY_MS + 7)
    assert refused.value.hint == "write more than 3d, or `orchctl delete service web`"
    assert decide([for_a_while(DAY_MS)], there, now_ms=NOW_MS + 3 * DAY_MS).changes == ()
    assert len(decide([service()], there, now_ms=NOW_MS + 3 * DAY_MS).changes) == 1
    assert len(decide([for_a_while(3 * DAY_MS)], there, now_ms=NOW_MS + 3 * DAY_MS - 1).changes) == 1


def test_of_another_ttl_it_is_told_when_that_ends() -> None:
    there, new = stored(service()), for_a_while(DAY_MS)
    (result,) = decide([new], there, now_ms=NOW_MS + DAY_MS - 60_000).results
    (line,) = lifetime.told(result.before, result.after, NOW_MS + DAY_MS - 60_000)
    assert line == (
        "spec.ttl: it counts from when the service was made, 23h59m ago, so that it is deleted in 1m; write more, or "
        "remove it, to keep the service longer"
    )
    assert list(lifetime.told(None, new, NOW_MS)) == []
    assert list(lifetime.told(result.after, result.after, NOW_MS)) == []
    assert list(lifetime.told(result.after, there, NOW_MS)) == []


def test_what_get_prints_can_be_applied_again_and_changes_nothing() -> None:
    there = stored(service(replicas=3))
    assert decide([there], there, now_ms=NOW_MS + 1).changes == ()


def test_a_change_of_the_spec_raises_the_generation_and_keeps_the_status() -> None:
    there = stored(service(replicas=3))
    result = decide([service(replicas=5)], there, now_ms=NOW_MS + 1).results[0]
    assert result.action == api.APPLY_ACTION_CHANGED
    assert result.changes == ("spec.replicas: 3 → 5",)
    assert isinstance(result.after, pb.Service)
    assert (result.after.meta.generation, result.after.meta.updated_at) == (2, NOW_MS + 1)
    assert (result.after.meta.id, result.after.meta.created_at) == (there.meta.id, NOW_MS)
    assert result.after.status.running == 3
    assert result.after.meta.version == 7, "the version that the write expects"


def test_what_is_stored_is_not_touched() -> None:
    there = stored(service(replicas=3))
    before = there.SerializeToString(deterministic=True)
    decide([service(replicas=5)], there)
    assert there.SerializeToString(deterministic=True) == before


def test_a_change_of_labels_alone_is_written_but_is_no_new_generation() -> None:
    there = stored(service())
    result = decide([service(labels={"team": "blue"})], there).results[0]
    assert result.action == api.APPLY_ACTION_CHANGED
    assert result.after.meta.generation == 1
    assert dict(result.after.meta.labels) == {"team": "blue"}


def test_what_the_manifest_no_longer_says_goes() -> None:
    there = stored(service(labels={"team": "blue"}))
    assert dict(decide([service()], there).results[0].after.meta.labels) == {}


def test_leaving_replicas_out_keeps_the_number_that_scale_has_set() -> None:
    there = stored(service(replicas=9))
    assert decide([service()], there).changes == ()
    changed = decide([service(image="hello:2")], there).results[0].after
    assert isinstance(changed, pb.Service)
    assert changed.spec.replicas == 9


def test_status_and_system_fields_of_the_request_are_ignored() -> None:
    wanted = service(replicas=3, id="mine", generation=99, created_at=1, deleted_at=5)
    wanted.status.running = 77
    there = stored(service(replicas=3))
    assert decide([wanted], there).changes == ()
    made = decide([wanted]).results[0].after
    assert isinstance(made, pb.Service)
    assert (made.meta.id, made.meta.generation, made.meta.deleted_at, made.status.running) == ("id-1", 1, 0, 0)


def test_a_version_that_is_not_the_present_one_is_outdated() -> None:
    there = stored(service(), version=7)
    decide([service(image="hello:2", version=7)], there)
    with pytest.raises(errors.Outdated, match="is at version 7 now, and the change was made to version 6"):
        decide([service(image="hello:2", version=6)], there)
    with pytest.raises(errors.Outdated, match="is gone"):
        decide([service(version=6)])


def test_an_object_that_is_being_deleted_is_refused_with_the_remedy() -> None:
    there = stored(service())
    there.meta.deleted_at = NOW_MS
    with pytest.raises(errors.NotNow, match="Service default/web: the object is being deleted") as raised:
        decide([service()], there)
    assert "orchctl get service web -w" in raised.value.hint


def test_a_node_has_to_have_joined() -> None:
    node = pb.Node(meta=pb.Meta(name="n1"), spec=pb.NodeSpec(availability=pb.AVAILABILITY_DRAIN))
    with pytest.raises(errors.Unknown, match="Node n1: no node of this name has joined"):
        decide([node])
    joined = pb.Node(meta=pb.Meta(id="x1", name="n1", generation=1, version=4))
    joined.status.state = pb.NODE_STATE_READY
    after = decide([node], joined).results[0].after
    assert isinstance(after, pb.Node)
    assert after.spec.availability == pb.AVAILABILITY_DRAIN
    assert (after.meta.id, after.status.state) == ("x1", pb.NODE_STATE_READY)


def test_every_mistake_of_every_object_is_told_at_once() -> None:
    wrong = service("Wrong_Name", replicas=1_000_000)
    with pytest.raises(errors.Invalid) as raised:
        apply.prepare([wrong, service(image=""), pb.Task(meta=pb.Meta(name="t"))])
    told = {(mistake.object, mistake.path) for mistake in raised.value.mistakes}
    assert told >= {
        ("Service default/Wrong_Name", "meta.name"),
        ("Service default/Wrong_Name", "spec.replicas"),
        ("Service default/web", "spec.template.container.image"),
        ("Task default/t", ""),
    }
    assert f"(and {len(raised.value.mistakes) - 1} more)" in raised.value.message


def test_one_object_twice_is_a_mistake() -> None:
    with pytest.raises(errors.Invalid, match="Service default/web: it is there twice"):
        apply.prepare([service(), service(namespace="default")])


def test_refusals_of_several_objects_are_told_together() -> None:
    going = stored(service("going"))
    going.meta.deleted_at = NOW_MS
    with pytest.raises(errors.Outdated) as raised:
        decide([service("going"), service("web", version=3)], going)
    assert [mistake.object for mistake in raised.value.mistakes] == ["Service default/web", "Service default/going"]


def test_more_changes_than_one_commit_holds_are_refused() -> None:
    many = [service(f"s{number}") for number in range(apply.MAX_CHANGES + 1)]
    with pytest.raises(errors.Invalid, match="changes 128 objects; 127 is the most"):
        apply.check_size(decide(many).changes)
    unchanged = [stored(value) for value in many[1:]]
    one = decide(many, *unchanged).changes
    apply.check_size(one)
    assert len(one) == 1


def exported(there: kinds.StoredObject, **changes: object) -> pb.Service:
    """As `get -o yaml` prints it, and somebody edits it."""
    assert isinstance(there, pb.Service)
    return service(version=there.meta.version, generation=there.meta.generation, **changes)  # type: ignore[arg-type]


def test_an_exported_manifest_applies_while_only_the_system_has_written() -> None:
    """A status raises the version, and takes nothing away from anybody."""
    there = stored(service(replicas=3), version=7)
    mine = exported(there, image="hello:2")
    there.meta.version = 9
    assert decide([mine], there).results[0].action == api.APPLY_ACTION_CHANGED


def test_an_exported_manifest_conflicts_when_somebody_has_changed_the_spec_or_the_meta() -> None:
    """A file from before does not quietly move the object back to its old stack, either."""
    there = stored(service(replicas=3), version=7)
    mine = exported(there, image="hello:2", replicas=3)
    scaled = decide([service(replicas=5)], there).results[0].after
    labelled = decide([service(replicas=3, labels={"team": "blue"})], there).results[0].after
    moved = decide([service(replicas=3, stack="shop")], there).results[0].after
    for changed in (scaled, labelled, moved):
        changed.meta.version = 8
        with pytest.raises(
            errors.Outdated, match="is at version 8 now, and the change was made to version 7"
        ) as raised:
            decide([mine], changed)
        assert "--force" in raised.value.hint
    (forced,) = apply.prepare([mine], force=True)
    assert decide([forced], scaled).results[0].action == api.APPLY_ACTION_CHANGED


def test_an_exported_manifest_that_is_so_already_is_no_conflict() -> None:
    there = stored(service(replicas=3), version=7)
    mine = exported(there, replicas=3)
    there.meta.version, there.meta.generation = 9, 2
    assert decide([mine], there).changes == ()


def test_a_stack_is_given_to_all_and_contradicted_by_none() -> None:
    prepared = apply.prepare([service("a"), service("b", stack="shop"), pb.Node(meta=pb.Meta(name="n1"))], stack="shop")
    assert [one.meta.stack for one in prepared] == ["shop", "shop", ""]
    with pytest.raises(
        errors.Invalid, match=r"Service default/c: meta.stack: it is of the stack blog, and not of shop"
    ):
        apply.prepare([service("c", stack="blog")], stack="shop")

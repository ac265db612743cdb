"""The Control service over a real gRPC server and the memory store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos import kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world
from tests.support.api_world import apply_request, node, refusal, service, task

A_MOMENT_S = 5


def named(kind: str, name: str) -> pb.ObjectReference:
    return pb.ObjectReference(kind=kind, namespace="default", name=name)


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, pb.Error]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return refusal(raised.value)


@aio.bounded(20)
async def test_what_was_applied_is_there_for_the_next_read(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        applied = await world.stub.Apply(apply_request(service(replicas=3), service("db")))
        assert [result.action for result in applied.results] == [pb.APPLY_ACTION_CREATED] * 2
        found = await world.stub.Get(pb.GetRequest(reference=named("service", "web")))
        assert found.service == applied.results[0].object.service
        assert found.service.meta.version == applied.revision > 0
        listed = await world.stub.List(pb.ListRequest(kind="service"))
        assert [each.service.meta.name for each in listed.objects] == ["db", "web"]
        assert (listed.revision, listed.stale) == (applied.revision, False)


@aio.bounded(20)
async def test_an_apply_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        first = await world.stub.Apply(apply_request(service(replicas=3)))
        again = await world.stub.Apply(apply_request(service(replicas=3)))
        assert again.results[0].action == pb.APPLY_ACTION_UNCHANGED
        assert (await world.store.list("/")).revision == first.revision


@aio.bounded(20)
async def test_a_dry_run_tells_the_changes_and_writes_nothing(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        first = await world.stub.Apply(apply_request(service(replicas=3)))
        dry = await world.stub.Apply(apply_request(service(replicas=5), service("db"), dry_run=True))
        assert [result.action for result in dry.results] == [pb.APPLY_ACTION_CHANGED, pb.APPLY_ACTION_CREATED]
        assert list(dry.results[0].changes) == ["spec.replicas: 3 → 5"]
        assert (await world.store.list("/")).revision == first.revision


@aio.bounded(20)
async def test_more_than_one_commit_holds_is_refused_and_nothing_of_it_is_done(tmp_path: Path) -> None:
    """A dry run says so, too."""
    many = [service(f"s{number}") for number in range(128)]
    async with api_world.opened(tmp_path) as world:
        for dry_run in (True, False):
            code, error = await refused(world.stub.Apply(apply_request(*many, dry_run=dry_run)))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "this apply changes 128 objects; 127 is the most" in error.message
        assert not (await world.stub.List(pb.ListRequest(kind="service"))).objects


@aio.bounded(20)
async def test_a_dry_run_tells_where_every_task_would_go(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(node("n1"), node("n2"))
        request = apply_request(service(replicas=2))
        assert not (await world.stub.Apply(request)).placements, "it is no dry run"
        request.dry_run = True
        told = (await world.stub.Apply(request)).placements
        assert [(one.service, one.slot, one.node) for one in told] == [
            ("default/web", 1, "n1"),
            ("default/web", 2, "n2"),
        ]


@aio.bounded(20)
async def test_why_answers_of_services_and_refuses_what_is_not_there(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(node("n1"), node("n2"))
        await world.stub.UpdateNode(pb.UpdateNodeRequest(node="n1", set_taints=[objects_pb2.Taint(key="spare")]))
        await world.stub.Apply(apply_request(service()))
        answer = await world.stub.Why(pb.WhyRequest(name="web"))
        assert answer.summary == "one more task: 1 of 2 nodes take it now, the best is n2"
        assert [(one.node, one.takes) for one in answer.nodes] == [("n2", True), ("n1", False)]
        (only,) = (await world.stub.Why(pb.WhyRequest(name="web", node="n1"))).nodes
        assert [one.refusal for one in only.filters if one.refusal] == ["taint spare:no-schedule is not tolerated"]
        code, error = await refused(world.stub.Why(pb.WhyRequest(name="webb")))
        assert (code, error.hint) == (grpc.StatusCode.NOT_FOUND, 'did you mean "web"?')
        code, _ = await refused(world.stub.Why(pb.WhyRequest(name="web", node="n9")))
        assert code == grpc.StatusCode.NOT_FOUND
        mistaken = pb.UpdateNodeRequest(node="n1", set_taints=[objects_pb2.Taint(key="a b")])
        code, error = await refused(world.stub.UpdateNode(mistaken))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "is no taint's key" in error.message


@aio.bounded(20)
async def test_every_mistake_reaches_the_caller_with_its_place(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        code, error = await refused(
            world.stub.Apply(apply_request(service("Bad_Name"), service("ok"), service(image="")))
        )
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        places = {(field.object, field.path) for field in error.fields}
        assert ("Service default/Bad_Name", "meta.name") in places
        assert ("Service default/web", "spec.template.container.image") in places
        assert not (await world.stub.List(pb.ListRequest(kind="service"))).objects, "all or nothing"


@aio.bounded(20)
async def test_a_thousand_mistakes_still_make_an_answer(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        code, error = await refused(world.stub.Apply(apply_request(*(service(f"Bad_{n}") for n in range(1000)))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert 10 < len(error.fields) < 1000
        assert error.fields[-1].message.endswith("more")


@aio.bounded(20)
async def test_a_change_made_to_an_older_version_is_aborted(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        first = await world.stub.Apply(apply_request(service(replicas=1)))
        await world.stub.Scale(pb.ScaleRequest(reference=named("service", "web"), replicas=2))
        stale = first.results[0].object.service
        stale.spec.replicas = 3
        code, error = await refused(world.stub.Apply(apply_request(stale)))
        assert code is grpc.StatusCode.ABORTED
        assert "meta.version" in error.message


@aio.bounded(30)
async def test_applies_at_the_same_time_end_as_if_one_after_the_other(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service(replicas=1)))
        wanted = [service(replicas=number, image=f"hello:{number}") for number in range(2, 5)]
        await asyncio.gather(*(world.stub.Apply(apply_request(each)) for each in wanted))
        found = (await world.stub.Get(pb.GetRequest(reference=named("service", "web")))).service
        assert found.meta.generation == 4
        assert found.spec.template.container.image == f"hello:{found.spec.replicas}"


@aio.bounded(20)
async def test_warnings_name_what_is_probably_not_meant(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(node("n1"))
        wanted = service(replicas=2, image="local:1")
        wanted.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
        wanted.spec.template.container.ports.add(target=80, published=8080, mode=objects_pb2.PUBLISH_MODE_HOST)
        warnings = (await world.stub.Apply(apply_request(wanted))).results[0].warnings
        assert len(warnings) == 2
        assert "local:1 is never fetched" in warnings[0]
        assert "8080 is published on the node" in warnings[1]


@aio.bounded(20)
async def test_scale_changes_the_number_only(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service(replicas=3)))
        scaled = await world.stub.Scale(pb.ScaleRequest(reference=named("service", "web"), replicas=9))
        assert (scaled.before, scaled.service.spec.replicas, scaled.service.meta.generation) == (3, 9, 2)
        assert (await world.stub.Apply(apply_request(service()))).results[0].action == pb.APPLY_ACTION_UNCHANGED
        code, error = await refused(
            world.stub.Scale(pb.ScaleRequest(reference=named("service", "web"), replicas=1_000_000))
        )
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert error.fields[0].path == "spec.replicas"


@aio.bounded(20)
async def test_what_is_not_found_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service("frontend")))
        code, error = await refused(world.stub.Get(pb.GetRequest(reference=named("service", "fronted"))))
        assert code is grpc.StatusCode.NOT_FOUND
        assert error.message == "there is no service 'fronted' in namespace default"
        assert "frontend" in error.hint
        code, error = await refused(world.stub.List(pb.ListRequest(kind="servise")))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "service" in error.hint


@aio.bounded(20)
async def test_tasks_and_nodes_are_found_by_id_and_by_its_beginning(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(task("web-1-aaaa"), task("web-1-bbbb"), node("n1"))
        for name in ("web-1-aaaa", "web-1-a"):
            found = await world.stub.Get(pb.GetRequest(reference=named("task", name)))
            assert found.task.meta.id == "web-1-aaaa"
        for name in ("n1", "id-of-n1", "id-of"):
            found = await world.stub.Get(pb.GetRequest(reference=named("node", name)))
            assert found.node.meta.name == "n1"
        code, error = await refused(world.stub.Get(pb.GetRequest(reference=named("task", "web-1-"))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "web-1-aaaa, web-1-bbbb" in error.message


@aio.bounded(20)
async def test_lists_are_filtered(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        red = task("web-2-b", node="id-of-n1")
        red.meta.labels["colour"] = "red"
        await world.put(task("web-1-a", node="id-of-n1"), red, task("db-1-c", service="db"), node("n1"))

        async def names(**filters: object) -> list[str]:
            listed = await world.stub.List(pb.ListRequest(kind="task", **filters))  # type: ignore[arg-type]
            return [each.task.meta.name for each in listed.objects]

        assert await names(service="web") == ["web-1-a", "web-2-b"]
        assert await names(service="web", namespace="default", node="n1") == ["web-1-a", "web-2-b"]
        assert await names(node="id-of-n1", labels={"colour": "red"}) == ["web-2-b"]
        assert await names(namespace="other") == []


@aio.bounded(20)
async def test_deleting_a_service_marks_it_and_the_rest_is_its_controllers(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service()))
        for _ in range(2):
            deleted = await world.stub.Delete(pb.DeleteRequest(reference=named("service", "web")))
            assert deleted.object.service.meta.deleted_at == api_world.NOW_MS
        code, error = await refused(world.stub.Apply(apply_request(service(replicas=2))))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "being deleted" in error.message
        code, _ = await refused(world.stub.Scale(pb.ScaleRequest(reference=named("service", "web"), replicas=2)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION


@aio.bounded(20)
async def test_only_a_node_that_is_down_can_be_deleted(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(node("n1"))
        code, error = await refused(world.stub.Delete(pb.DeleteRequest(reference=named("node", "n1"))))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "orchctl node drain n1" in error.hint
        await world.put(node("n1", state=objects_pb2.NODE_STATE_DOWN))
        await world.stub.Delete(pb.DeleteRequest(reference=named("node", "n1")))
        assert not (await world.stub.List(pb.ListRequest(kind="node"))).objects


@aio.bounded(20)
async def test_tasks_belong_to_their_service(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(task("web-1-a"))
        code, error = await refused(world.stub.Delete(pb.DeleteRequest(reference=named("task", "web-1-a"))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "orchctl delete service web" in error.hint


@aio.bounded(20)
async def test_a_nodes_labels_and_availability_are_the_users(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        there = node("n1")
        there.meta.labels.update({"disk": "slow", "zone": "a"})
        await world.put(there)
        request = pb.UpdateNodeRequest(
            node="n1", availability=objects_pb2.AVAILABILITY_DRAIN, set_labels={"disk": "fast"}, remove_labels=["zone"]
        )
        updated = (await world.stub.UpdateNode(request)).node
        assert dict(updated.meta.labels) == {"disk": "fast"}
        assert updated.spec.availability == objects_pb2.AVAILABILITY_DRAIN
        assert updated.meta.generation == 2
        kept = (await world.stub.UpdateNode(pb.UpdateNodeRequest(node="n1"))).node
        assert kept == updated


@aio.bounded(20)
async def test_a_watch_tells_what_is_there_then_synced_then_each_change(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service("a")))
        selections = [pb.ListRequest(kind="service"), pb.ListRequest(kind="task", service="a")]
        async with watching(world, selections) as told:
            assert await told() == "changed a"
            assert (await told()).startswith("synced")
            await world.stub.Apply(apply_request(service("b")))
            assert await told() == "changed b"
            await world.put(task("b-1-x", service="b"), task("a-1-x", service="a"))
            assert await told() == "changed a-1-x"
            await world.remove(task("a-1-x", service="a"))
            assert await told() == "deleted a-1-x"


@aio.bounded(20)
async def test_an_object_that_leaves_the_selection_is_told_as_deleted(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        there = node("n1")
        there.meta.labels["zone"] = "a"
        await world.put(there)
        async with watching(world, [pb.ListRequest(kind="node", labels={"zone": "a"})]) as told:
            assert await told() == "changed n1"
            assert (await told()).startswith("synced")
            await world.stub.UpdateNode(pb.UpdateNodeRequest(node="n1", set_labels={"zone": "b"}))
            assert await told() == "deleted n1"


@aio.bounded(20)
async def test_version_tells_who_answers_and_who_leads(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        world.election.problem = "etcd does not answer"
        version = await world.stub.Version(pb.VersionRequest())
        assert (version.version, version.instance, version.leader) == ("1.2.3", "cp1", "cp1")
        assert version.leader_address == "127.0.0.1:7400"
        assert version.store_problem == "etcd does not answer"


@aio.bounded(20)
async def test_an_unexpected_error_is_answered_with_a_reference_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_world.opened(tmp_path) as world:

        def broken() -> str:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(world.election, "store_problem", broken)
        code, error = await refused(world.stub.Version(pb.VersionRequest()))
        assert code is grpc.StatusCode.INTERNAL
        assert "ref-1" in error.message
        assert "secret" not in str(error)


@contextlib.asynccontextmanager
async def watching(
    world: api_world.World, selections: list[pb.ListRequest]
) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """A watch; the callable waits for the next thing told, as one line."""
    call = world.stub.Watch(pb.WatchRequest(selections=selections))

    async def told() -> str:
        event = await aio.within(A_MOMENT_S, call.read(), what="the watch tells something")
        assert isinstance(event, pb.WatchResponse), "the watch has ended"
        what = event.WhichOneof("event")
        if what == "synced":
            return f"synced {event.synced}"
        return f"{what} {kinds.unwrap(getattr(event, str(what))).meta.name}"

    try:
        yield told
    finally:
        call.cancel()

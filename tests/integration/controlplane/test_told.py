"""What people do is told in the transaction that does it; over a real gRPC server and the memory store."""

from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.store import api
from protos import headers, kinds
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world
from tests.support.api_world import World, apply_request, node, refusal, service

ANN = ((headers.ACTOR, "ann@laptop"),)


async def events(world: World, about: pb.ObjectReference | None = None) -> list[objects_pb2.Event]:
    listed = await world.stub.List(pb.ListRequest(kind="event", about=about))
    return [one.event for one in listed.objects]


def reference(kind: str = "service", name: str = "web", namespace: str = "default") -> pb.ObjectReference:
    return pb.ObjectReference(kind=kind, namespace=namespace, name=name)


@aio.bounded(20)
async def test_a_change_and_its_event_are_of_one_revision(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        applied = await world.stub.Apply(apply_request(service(replicas=1)), metadata=ANN)
        (event,) = await events(world)
        assert event.meta.version == applied.revision
        assert event.status.about.id == applied.results[0].object.service.meta.id
        assert (event.status.reason, event.status.actor) == ("Created", "ann@laptop")


@aio.bounded(20)
async def test_what_changes_nothing_is_not_told(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service(replicas=1)))
        before = (await world.store.list("/")).revision
        await world.stub.Apply(apply_request(service(replicas=1)))
        await world.stub.Scale(pb.ScaleRequest(reference=reference(), replicas=1))
        await world.stub.UpdateMeta(pb.UpdateMetaRequest(reference=reference(), remove_labels=["none"]))
        assert (await world.store.list("/")).revision == before


@aio.bounded(20)
async def test_each_verb_is_told_in_its_words(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.put(node("n1"))
        await world.stub.Apply(apply_request(service(replicas=1)))
        await world.stub.Scale(pb.ScaleRequest(reference=reference(), replicas=2))
        changed = service(replicas=3)
        changed.spec.template.container.env["PASSWORD"] = "secret"
        await world.stub.Apply(apply_request(changed))
        await world.stub.UpdateMeta(pb.UpdateMetaRequest(reference=reference(), set_labels={"a": "b"}))
        await world.stub.Delete(pb.DeleteRequest(reference=reference()))
        drain = pb.UpdateNodeRequest(node="n1", availability=objects_pb2.AVAILABILITY_DRAIN)
        await world.stub.UpdateNode(drain)
        await world.stub.UpdateNode(pb.UpdateNodeRequest(node="n1", set_taints=[objects_pb2.Taint(key="spare")]))
        told = sorted(await events(world), key=lambda event: event.meta.version)
        said = [(event.status.reason, event.status.message) for event in told]
        assert said == [
            ("Created", "made by an apply"),
            ("Scaled", "1 → 2 replicas"),
            ("Changed", "spec.replicas: 2 → 3; spec.template.container.env.PASSWORD"),
            ("Labelled", 'meta.labels.a: (none) → "b"'),
            ("Deleted", "its tasks are told to stop"),
            ("Drained", "its tasks are replaced on other nodes"),
            ("Tainted", "its taints were changed"),
        ]
        assert [event.meta.namespace for event in told[-3:]] == ["default", "_", "_"]


@aio.bounded(20)
async def test_that_a_node_does_not_come_back_is_said_once_and_only_of_one_that_is_away(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        away = node("n1")
        away.status.state, away.status.since = objects_pb2.NODE_STATE_DOWN, 1_234
        await world.put(away)
        await world.put(node("n2"))
        for _ in range(2):
            answer = await world.stub.UpdateNode(pb.UpdateNodeRequest(node="n1", lost=True), metadata=ANN)
            assert answer.node.spec.lost_since == 1_234
        (event,) = await events(world)
        assert (event.status.reason, event.status.actor) == ("GivenUp", "ann@laptop")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.stub.UpdateNode(pb.UpdateNodeRequest(node="n2", lost=True))
        code, error = refusal(caught.value)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.message == "Node n2 is not lost: its agent holds a session"


@aio.bounded(20)
async def test_an_actor_is_one_short_word(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service()), metadata=((headers.ACTOR, "a b c" * 100),))
        (event,) = await events(world)
        assert event.status.actor == ("abc" * 100)[:100]


@aio.bounded(30)
async def test_a_large_apply_is_told_as_far_as_there_is_room(tmp_path: Path) -> None:
    """What is told never makes a change too large for the store."""
    async with api_world.opened(tmp_path) as world:
        for number, count in ((1, 100), (2, api.MAX_OPERATIONS)):
            wanted = [service(f"s{one}", replicas=number) for one in range(count)]
            response = await world.stub.Apply(apply_request(*wanted))
            assert len(response.results) == count
        assert len(await events(world)) == api.MAX_OPERATIONS - 100


@aio.bounded(20)
async def test_events_are_selected_by_what_they_are_about(tmp_path: Path) -> None:
    """About a service: those about its tasks, too."""
    async with api_world.opened(tmp_path) as world:
        about = objects_pb2.EventObject(kind="task", namespace="default", name="web-1-x", id="web-1-x", service="web")
        of_task = objects_pb2.Event(meta=objects_pb2.Meta(id="e1", name="e1", namespace="default"))
        of_task.status.about.CopyFrom(about)
        await world.put(of_task)
        await world.stub.Apply(apply_request(service("web"), service("web-1")))
        assert len(await events(world)) == 3
        assert {event.status.about.name for event in await events(world, reference())} == {"web", "web-1-x"}
        assert [event.meta.id for event in await events(world, reference("task", "web-1-x"))] == ["e1"]
        assert await events(world, reference(namespace="other")) == []
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.List(pb.ListRequest(kind="service", about=reference()))
        assert refusal(raised.value)[1].message == "services are about nothing"


@aio.bounded(20)
async def test_nobody_applies_or_deletes_events(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(service()))
        (event,) = await events(world)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.Apply(apply_request(event))
        assert refusal(raised.value)[0] is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.Delete(pb.DeleteRequest(reference=reference("event", event.meta.id)))
        assert refusal(raised.value)[1].message == "events go by themselves, the oldest first"


@aio.bounded(20)
async def test_what_somebody_adds_to_a_stack_meanwhile_refuses_its_pruning(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        old, new, kept = service("old"), service("new"), service("web")
        await world.stub.Apply(pb.ApplyRequest(objects=map(kinds.wrap, [old, kept]), stack="shop"))
        look = pb.ApplyRequest(objects=[kinds.wrap(kept)], stack="shop", prune=True, dry_run=True)
        shown = (await world.stub.Apply(look)).results
        assert [one.action for one in shown] == [pb.APPLY_ACTION_UNCHANGED, pb.APPLY_ACTION_PRUNED]
        await world.stub.Apply(pb.ApplyRequest(objects=[kinds.wrap(new)], stack="shop"))
        agreed = [shown[1].object.service.meta.id]
        prune = pb.ApplyRequest(objects=[kinds.wrap(kept)], stack="shop", prune=True, agreed=agreed)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.stub.Apply(prune)
        assert raised.value.code() is grpc.StatusCode.ABORTED
        listed = (await world.stub.List(pb.ListRequest(kind="service"))).objects
        assert not any(one.service.meta.deleted_at for one in listed), "all or nothing"
        prune.agreed.append(next(one.service.meta.id for one in listed if one.service.meta.name == "new"))
        pruned = await world.stub.Apply(prune)
        assert [one.object.service.meta.name for one in pruned.results[1:]] == ["new", "old"]
        told = [event for event in await events(world) if event.status.reason == "Pruned"]
        assert [event.meta.version for event in told] == [pruned.revision] * 2

"""Networks, ports and endpoints over a real gRPC server and the memory store; and addresses over changes of leaders."""

from collections.abc import Awaitable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.store import memory
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, objects_pb2
from tests.support import aio, api_world, build
from tests.support.api_world import apply_request, node, refusal, service
from tests.support.instances import Running, eventually, instances


def with_ports(name: str, *ports: objects_pb2.Port) -> objects_pb2.Service:
    made = service(name)
    made.spec.template.container.ports.extend(ports or [objects_pb2.Port(name="http", target=80)])
    return made


def network(name: str) -> objects_pb2.Network:
    return objects_pb2.Network(meta=objects_pb2.Meta(name=name))


def reference(kind: str, name: str) -> pb.ObjectReference:
    return pb.ObjectReference(kind=kind, namespace="default", name=name)


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, pb.Error]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return refusal(raised.value)


@aio.bounded(30)
async def test_what_does_not_fit_together_is_refused_by_name(tmp_path: Path) -> None:
    """Nothing is written, and each refusal names what is in the way."""
    async with api_world.opened(tmp_path) as world:
        await world.stub.Apply(apply_request(with_ports("web", objects_pb2.Port(target=80, published=8080))))
        code, error = await refused(
            world.stub.Apply(apply_request(with_ports("api", objects_pb2.Port(target=80, published=8080))))
        )
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "port 8080/tcp is published by Service default/web already" in error.message
        lost = with_ports("lost")
        lost.spec.networks.append("bakc")
        await world.stub.Apply(apply_request(network("back")))
        code, error = await refused(world.stub.Apply(apply_request(lost)))
        assert (code, error.hint) == (grpc.StatusCode.NOT_FOUND, 'did you mean "back"?')
        listed = await world.stub.List(pb.ListRequest(kind="service"))
        assert [each.service.meta.name for each in listed.objects] == ["web"]


@aio.bounded(30)
async def test_a_network_goes_when_nobody_is_in_it(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        member = with_ports("web")
        member.spec.networks.append("back")
        await world.stub.Apply(apply_request(member, network("back")))
        code, error = await refused(world.stub.Delete(pb.DeleteRequest(reference=reference("network", "back"))))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "is used by Service default/web" in error.message
        await world.stub.Delete(pb.DeleteRequest(reference=reference("service", "web")))
        await world.stub.Delete(pb.DeleteRequest(reference=reference("network", "back")))
        assert not (await world.stub.List(pb.ListRequest(kind="network"))).objects


@aio.bounded(30)
async def test_a_rule_for_a_service_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        open_to_others = with_ports("web")
        open_to_others.spec.allow.add(**{"from": "api"})
        applied = await world.stub.Apply(apply_request(open_to_others))
        assert any("there is no service default/api" in line for line in applied.results[0].warnings)
        applied = await world.stub.Apply(apply_request(open_to_others, with_ports("api")))
        assert not any("there is no service" in line for line in applied.results[0].warnings)


@aio.bounded(30)
async def test_endpoints_are_worked_out_when_somebody_asks(tmp_path: Path) -> None:
    async with api_world.opened(tmp_path) as world:
        applied = await world.stub.Apply(apply_request(with_ports("web")))
        stored = applied.results[0].object.service
        stored.status.address = "10.201.0.1"
        task = api_world.task("web-1-a", node="id-of-n1")
        task.status.address, task.slot = "10.112.0.2", 1
        await world.put(stored, build.revision(stored), task, node("n1"))
        (found,) = (await world.stub.List(pb.ListRequest(kind="endpoints", namespace="default"))).objects
        status = found.endpoints.status
        assert (status.address, [port.target for port in status.ports]) == ("10.201.0.1", [80])
        assert [(one.id, one.address, one.ready) for one in status.tasks] == [("web-1-a", "10.112.0.2", True)]
        assert await world.stub.Get(pb.GetRequest(reference=reference("endpoints", "web"))) == found
        code, _ = await refused(world.stub.Get(pb.GetRequest(reference=reference("endpoints", "wbe"))))
        assert code is grpc.StatusCode.NOT_FOUND
        code, _ = await refused(world.stub.Delete(pb.DeleteRequest(reference=reference("endpoints", "web"))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        watch = world.stub.Watch(pb.WatchRequest(selections=[pb.ListRequest(kind="endpoints")]))
        code, error = await refused(watch.read())
        assert (code, error.hint) == (grpc.StatusCode.INVALID_ARGUMENT, "watch tasks, which they follow")


@aio.bounded(60)
async def test_addresses_stay_and_freed_ones_rest_when_the_leader_changes(tmp_path: Path) -> None:
    store = memory.MemoryStore()
    async with instances(store, tmp_path, "a", "b") as (first, second):
        leader = await leading(first, second)
        async with leader.stub() as stub:
            await stub.Apply(apply_request(with_ports("web"), with_ports("api"), service("plain")))
            addresses = await eventually(lambda: given(stub), lambda found: len(found) == 2)
            assert sorted(addresses.values()) == ["10.201.0.1", "10.201.0.2"]
            freed = max(addresses, key=lambda name: addresses[name])
            await stub.Delete(pb.DeleteRequest(reference=reference("service", freed)))
            await eventually(lambda: given(stub), lambda found: len(found) == 1)
        assert leader.task is not None
        leader.task.cancel()
        other = second if leader is first else first
        await leading(other)
        async with other.stub() as stub:
            await stub.Apply(apply_request(with_ports("late")))
            found = await eventually(lambda: given(stub), lambda found: "late" in found)
        assert found == {**{name: one for name, one in addresses.items() if name != freed}, "late": "10.201.0.3"}


async def given(stub: "control_pb2_grpc.ControlAsyncStub") -> dict[str, str]:
    """The virtual addresses by service."""
    listed = await stub.List(pb.ListRequest(kind="service"))
    services = [each.service for each in listed.objects]
    return {one.meta.name: one.status.address for one in services if one.status.address}


async def leading(*candidates: Running) -> Running:
    async def ask() -> list[Running]:
        return [one for one in candidates if one.leads()]

    return (await eventually(ask, bool))[0]

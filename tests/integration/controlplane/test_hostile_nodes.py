"""A node that says what no agent would, over real TLS: it harms itself at most, and never who leads or other nodes."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.core import said
from protos import states
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import dispatcher_pb2 as wire
from protos.orch.v1 import objects_pb2
from tests.support import aio, api_world, trusted

MIB = 2**20


@contextlib.asynccontextmanager
async def other_node_works(made: trusted.Cluster) -> AsyncIterator[None]:
    """After the block a node joins, and is told of its network by the leader that was there before."""
    leader = made.instance.leader()
    yield
    good = await made.join("good")
    async with trusted.session(made, good, address="10.0.0.9") as call:
        message = await call.read()
        while message.WhichOneof("message") != "assignment":  # type: ignore[union-attr]  # the end would fail here
            message = await call.read()
        for peer in message.assignment.network.peers:  # type: ignore[union-attr]
            assert peer.address.startswith("10.0.0."), "others are told of addresses alone"
    assert made.instance.leader() == leader
    assert leader.here


async def end_of(call: "grpc.aio.StreamStreamCall[object, object]") -> str:
    """How a session ends, whatever comes before."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            continue
    return await call.details() or ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda told: setattr(told.description, "hostname", "x" * 2 * MIB), "may have 65536"),
        (lambda told: told.labels.update({"zone": "x" * MIB}), "may have 65536"),
        (lambda told: setattr(told.description, "address", "garbage"), "description.address: not an address"),
        (lambda told: setattr(told, "node_name", "payroll-db"), "the node joined as bad-name"),
        (lambda told: setattr(told.description.capacity, "memory", -1), "capacity.memory"),
    ],
)
@aio.bounded(60)
async def test_a_registration_that_no_agent_makes_is_refused(
    tmp_path: Path, change: Callable[[wire.Register], None], expected: str
) -> None:
    async with trusted.cluster(tmp_path) as made, other_node_works(made):
        bad = await made.join("bad")
        async with made.dispatcher(bad) as stub:
            call = stub.Session()  # type: ignore[call-arg]
            told = trusted.register(bad)
            change(told.register)
            await call.write(told)
            assert expected in await end_of(call)  # type: ignore[arg-type]
        assert made.instance.cache.snapshot().get(objects_pb2.Node, "bad") is None


def listed(made: trusted.Cluster) -> list[objects_pb2.Task]:
    return [one for one in made.instance.cache.snapshot().all(objects_pb2.Task).values() if one.node_id == "bad"]


@aio.bounded(90)
async def test_reports_that_no_agent_makes_are_cut_and_other_nodes_are_told_of_no_foreign_address(
    tmp_path: Path,
) -> None:
    """A message of megabytes, and the addresses of others."""
    wanted = api_world.service()
    wanted.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
    async with trusted.cluster(tmp_path) as made, other_node_works(made):
        bad = await made.join("bad")
        async with trusted.session(made, bad) as call, made.control(made.admin) as admin:
            await admin.Apply(pb.ApplyRequest(objects=[objects_pb2.Object(service=wanted)]))
            await aio.until(lambda: bool(listed(made)), what="a task is there", timeout_s=20)
            task = listed(made)[0]
            addresses = ["", "999.999.999.999", "10.0.0.9", "\x1b[31m"]
            for sequence, address in enumerate(addresses, start=1):
                one = wire.TaskReport(task_id=task.meta.id, namespace=task.meta.namespace)
                one.status.CopyFrom(
                    objects_pb2.TaskStatus(
                        state=states.RUNNING, ready=True, restarts=sequence, address=address, message="x" * 2 * MIB
                    )
                )
                await call.write(wire.AgentMessage(statuses=wire.StatusReport(sequence=sequence, tasks=[one])))
                stored = lambda number=sequence: listed(made)[0].status.restarts == number  # noqa: E731
                await aio.until(stored, what=f"the report with {address!r} is stored", timeout_s=20)
                status = listed(made)[0].status
                assert status.ByteSize() < said.MAX_STATUS_BYTES
                assert status.address == ""
                assert (status.reason == said.FOREIGN) == bool(address)
            service = made.instance.dispatcher.services()[0]
            assert not service.endpoints, "nothing is sent to a task that has no address"


@aio.bounded(60)
async def test_what_is_no_digest_is_not_remembered(tmp_path: Path) -> None:
    digest = f"sha256:{'a' * 64}"
    async with trusted.cluster(tmp_path) as made, other_node_works(made):
        bad = await made.join("bad")
        async with trusted.session(made, bad) as call:
            told = wire.BlobsHeld(added=["x" * 2 * MIB, "../../etc", digest])
            await call.write(wire.AgentMessage(blobs_held=told))
            holders = made.instance.dispatcher.holders
            await aio.until(lambda: digest in holders(), what="the digest is noted", timeout_s=10)
            assert "../../etc" not in holders()

"""Whole instances over one store, with real servers: who leads, what survives, and what an agent is told."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controlplane.store import memory
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import control_pb2_grpc, dispatcher_pb2_grpc, objects_pb2
from protos.orch.v1 import dispatcher_pb2 as wire
from tests.support import aio, etcd
from tests.support.api_world import apply_request, refusal, service
from tests.support.instances import A_MOMENT_S, Agent, eventually, instances, settled


@aio.bounded(40)
async def test_an_applied_service_runs_on_an_agent(tmp_path: Path) -> None:
    async with instances(memory.MemoryStore(), tmp_path, "cp1") as (cp1,), cp1.stub() as stub:
        agent = Agent("n1")
        async with asyncio.TaskGroup() as group:
            session = group.create_task(agent.run(cp1.address))
            await stub.Apply(apply_request(service(replicas=3)))
            found = await settled(stub, "web")
            session.cancel()
        assert (found.status.ready, len(agent.running)) == (3, 3)


@aio.bounded(40)
async def test_logs_and_exec_reach_the_agent_over_streams_that_it_opens(tmp_path: Path) -> None:
    async def typed() -> AsyncIterator[pb.ExecRequest]:
        yield pb.ExecRequest(start=pb.ExecStart(target="web", command=["cat"]))
        yield pb.ExecRequest(stdin=b"hello")

    async with instances(memory.MemoryStore(), tmp_path, "cp1") as (cp1,), cp1.stub() as stub:
        async with asyncio.TaskGroup() as group:
            session = group.create_task(Agent("n1").run(cp1.address))
            await stub.Apply(apply_request(service(replicas=2)))
            await settled(stub, "web")
            batches = [batch async for batch in stub.Logs(pb.LogsRequest(service="web", tail=-1))]
            answers = [answer async for answer in stub.Exec(typed())]
            session.cancel()
        lines = [line for batch in batches for line in batch.lines]
        assert [line.text for line in lines] == [b"from n1", b"from n1"]
        assert len({line.task for line in lines}) == 2
        assert not any(batch.notice for batch in batches)
        assert answers == [pb.ExecResponse(stdout=b"hello"), pb.ExecResponse(exit_code=3)]


@aio.bounded(40)
async def test_another_instance_leads_when_the_leader_stops_and_all_answer(tmp_path: Path) -> None:
    async with instances(memory.MemoryStore(), tmp_path, "cp1", "cp2") as (cp1, cp2), cp2.stub() as stub:
        await aio.until(lambda: cp2.instance.leader().name == "cp1", what="the follower knows the leader")
        applied = await stub.Apply(apply_request(service(replicas=1)))
        assert applied.results[0].action == pb.APPLY_ACTION_CREATED, "a follower takes writes"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Logs(pb.LogsRequest(service="web")).read()
        code, error = refusal(raised.value)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert error.leader == cp1.address
        assert await redirect(cp2.address) == cp1.address
        assert cp1.task is not None
        cp1.task.cancel()
        await aio.until(cp2.leads, what="the second instance leads", timeout_s=A_MOMENT_S)
        version = await stub.Version(pb.VersionRequest())
        assert (version.leader, version.leader_address) == ("cp2", cp2.address)


async def redirect(address: str) -> str:
    """Where an agent that calls this instance is sent."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()
        await call.write(wire.AgentMessage(register=wire.Register(node_id="x", node_name="n1")))
        message = await call.read()
        call.cancel()
        return message.redirect.leader_address


@aio.bounded(40)
async def test_an_agent_that_is_refused_hears_why(tmp_path: Path) -> None:
    async with (
        instances(memory.MemoryStore(), tmp_path, "cp1") as (cp1,),
        grpc.aio.insecure_channel(cp1.address) as channel,
    ):
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()
        await call.write(wire.AgentMessage(heartbeat=wire.Heartbeat()))
        with pytest.raises(grpc.aio.AioRpcError, match="the first message of a session has to be a registration"):
            await call.read()


# The program --------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_etcd() -> Iterator[etcd.EtcdProcess]:
    """An etcd that the test may kill."""
    with etcd.running() as process:
        yield process


@contextlib.contextmanager
def program(folder: Path, address: str, endpoint: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m controlplane`."""
    arguments = ["--name", "cp1", "--listen", address, "--advertise", address, "--etcd", f"http://{endpoint}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane", *arguments, "--state", str(folder)], stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def local(replicas: int | None = None) -> objects_pb2.Service:
    """A service of an image that only nodes have: the cluster behind the program has none."""
    made = service(replicas=replicas)
    made.spec.template.container.image_pull_policy = objects_pb2.IMAGE_PULL_POLICY_NEVER
    return made


@pytest.mark.etcd
@aio.bounded(60)
async def test_the_program_serves_survives_an_etcd_that_comes_and_goes_and_stops_when_asked(
    tmp_path: Path, own_etcd: etcd.EtcdProcess
) -> None:
    own_etcd.kill()
    with (
        tempfile.TemporaryDirectory(prefix="orch-cp-") as short,
        program(tmp_path, f"unix:{short}/cp", own_etcd.endpoint) as process,
    ):
        async with grpc.aio.insecure_channel(f"unix:{short}/cp") as channel:
            stub = control_pb2_grpc.ControlStub(channel)
            version = await stub.Version(pb.VersionRequest(), wait_for_ready=True, timeout=20)
            assert "has not answered" in version.store_problem
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Apply(apply_request(local()))
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

            own_etcd.start()
            await leads(stub)
            await stub.Apply(apply_request(local(2)))
            assert len((await tasks(stub, 2)).objects) == 2

            own_etcd.kill()
            listed = await stale_list(stub)
            assert [each.service.meta.name for each in listed.objects] == ["web"]
            reference = pb.ObjectReference(kind="service", namespace="default", name="web")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Scale(pb.ScaleRequest(reference=reference, replicas=3))
            code, error = refusal(raised.value)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "etcd" in error.message
            assert "nothing was written" in error.hint

            own_etcd.start()
            await leads(stub)
            await stub.Scale(pb.ScaleRequest(reference=reference, replicas=3))
            assert len((await tasks(stub, 3)).objects) == 3
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0


async def leads(stub: "control_pb2_grpc.ControlAsyncStub") -> None:
    """Returns once somebody leads."""
    await eventually(lambda: stub.Version(pb.VersionRequest()), lambda version: bool(version.leader))


async def tasks(stub: "control_pb2_grpc.ControlAsyncStub", number: int) -> pb.ListResponse:
    """The tasks, once there are so many."""
    return await eventually(
        lambda: stub.List(pb.ListRequest(kind="task")), lambda listed: len(listed.objects) >= number
    )


async def stale_list(stub: "control_pb2_grpc.ControlAsyncStub") -> pb.ListResponse:
    """The services, once the instance says that it has lost the store."""
    return await eventually(lambda: stub.List(pb.ListRequest(kind="service")), lambda listed: listed.stale)


@pytest.mark.parametrize(
    ("change", "expected_code", "expected"),
    [
        ({"--listen": "nonsense"}, 2, "is not HOST:PORT"),
        ({"--etcd": "ftp://127.0.0.1:1"}, 2, "is not https://HOST:PORT"),
        ({"--etcd": "https://127.0.0.1:1,http://127.0.0.1:2"}, 2, "is not https://HOST:PORT"),
        ({"--etcd": "https://127.0.0.1:1"}, 1, "an etcd with https wants a certificate; give its folder with --trust"),
        ({"--trust": "/nowhere"}, 2, "http would be spoken to in the clear; with --trust it is https://HOST:PORT"),
        (
            {"--trust": "/nowhere", "--etcd": "https://127.0.0.1:1"},
            1,
            "/nowhere/store.pem is not there: this machine has not joined a cluster",
        ),
        ({"--cluster-range": "10.0.0.0/30"}, 2, "too small"),
        ({"--cluster-range": "10.0.0.1/16"}, 2, "not a range of addresses"),
        ({"--service-range": "10.0.0.0/30"}, 2, "too small"),
        (
            {"--service-range": "10.112.128.0/17"},
            2,
            "--service-range 10.112.128.0/17 overlaps --cluster-range 10.112.0.0/16",
        ),
        ({"--cluster-range": "10.112.0.0/16,fd00:112::/48"}, 2, "--service-range 10.201.0.0/16 has no range of IPv6"),
        ({"--subnet-prefix6": "127"}, 2, "'127' is not the prefix of a subnet of IPv6, a number from 1 to 126"),
        ({"--network-mode": "bridge"}, 2, "invalid choice: 'bridge'"),
        ({"--leader-lease": "90s"}, 2, "'90s' is not a number of whole seconds from 2s to 60s"),
        ({"--leader-lease": "2500ms"}, 2, "'2500ms' is not a number of whole seconds from 2s to 60s"),
        ({"--network-mtu": "68"}, 2, "'68' is not a packet's size in bytes"),
        ({"--listen": "192.0.2.1:7400"}, 2, "192.0.2.1:7400 would be spoken to in the clear; give --trust"),
        ({"--advertise": "127.0.0.1:7400"}, 2, "127.0.0.1:7400 would be spoken to in the clear; give --trust"),
        ({"--door": "127.0.0.1:7401"}, 2, "who joins gets a certificate, which wants --trust"),
        ({"--metrics": "127.0.0.1:7404"}, 2, "whoever reads them shows a certificate, which wants --trust"),
        ({"--listen": "unix:/nowhere/cp"}, 1, "cannot listen on unix:/nowhere/cp"),
        ({"--limit": "person.stream=1"}, 2, "there is no limit person.stream: all has calls, streams"),
        ({"--state": "/dev/null/x"}, 1, "the state folder /dev/null/x cannot be used"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_line_and_an_exit_code(
    tmp_path: Path, change: dict[str, str], expected_code: int, expected: str
) -> None:
    options = {
        "--name": "cp1",
        "--listen": f"unix:{tmp_path}/cp",
        "--advertise": f"unix:{tmp_path}/cp",
        "--etcd": "http://127.0.0.1:1",
        "--state": str(tmp_path),
        **change,
    }
    arguments = [part for option in options.items() for part in option]
    command = [sys.executable, "-m", "controlplane", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == expected_code
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_do_not_share_a_state_folder(tmp_path: Path) -> None:
    with program(tmp_path, f"unix:{tmp_path}/1", "127.0.0.1:1") as first:
        assert first.stderr is not None
        assert "control plane serves" in first.stderr.readline()
        with program(tmp_path, f"unix:{tmp_path}/2", "127.0.0.1:1") as second:
            assert second.stderr is not None
            assert second.wait(20) == 1
            assert f"another control plane uses the state folder {tmp_path}" in second.stderr.read()

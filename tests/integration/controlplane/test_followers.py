"""What is said to one instance of the control plane holds at the others, and each says what it can do now."""

import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.orch.v1 import dispatcher_pb2_grpc, trust_pb2, trust_pb2_grpc
from tests.support import aio, etcd, trusted
from tests.support.trusted_process import ROOT, Process, instance, leader
from trust import credentials, joining
from trust.core.identity import Role
from trust.folder import Folder, Material

pytestmark = pytest.mark.etcd

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
CONTROL, DISPATCHER, SERVER = "orch.v1.Control", "orch.v1.Dispatcher", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two control planes over one member of etcd; the first one leads."""

    folder: Path
    store: etcd.EtcdProcess
    leader: Process
    follower: Process
    tokens: dict[str, str]

    @property
    def admin(self) -> Material:
        return Folder(self.folder / "admin").load(Role.ADMIN)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    tokens = trusted.found(folder)
    (folder / "cp").rename(folder / "cp1")
    with etcd.running(folder / "cp1") as store, instance(folder, "cp1", [store]) as first:
        admin = Folder(folder / "admin").load(Role.ADMIN)
        assert leader(first, admin) == "cp1"
        joined = subprocess.run(
            [
                *(sys.executable, "-m", "controlplane.trust.join", f"--token={tokens['controlplane_token']}"),
                *(f"--door={first.door}", f"--trust={folder / 'cp2'}", "--name=cp2", "--host=127.0.0.1"),
            ],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert joined.returncode == 0, joined.stderr
        with instance(folder, "cp2", [store]) as second:
            assert leader(second, admin) == "cp1"
            yield Pair(folder=folder, store=store, leader=first, follower=second, tokens=tokens)


@contextlib.asynccontextmanager
async def dialed(process: Process, own: Material) -> AsyncIterator[grpc.aio.Channel]:
    options = (("grpc.use_local_subchannel_pool", 1), *credentials.CHANNEL_OPTIONS)
    async with grpc.aio.secure_channel(process.address, credentials.channel(own), options=options) as channel:
        yield channel


@aio.bounded(90)
async def test_a_node_that_is_revoked_through_a_follower_loses_its_session_with_the_leader(pair: Pair) -> None:
    """Within a second of the answer, and it does not come back, at neither of the two."""
    own = joining.join(
        pair.leader.door,
        pair.tokens["node_token"],
        joining.Wish(name="n1", node_name="web"),
        Folder(pair.folder / "n1"),
    ).own
    async with dialed(pair.leader, own) as channel, dialed(pair.follower, pair.admin) as other:
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()  # type: ignore[call-arg]  # it wants an iterator
        await call.write(trusted.register(own, called="web"))
        assert (await call.read()).WhichOneof("message") == "registered"  # type: ignore[union-attr]
        await trust_pb2_grpc.TrustStub(other).RevokeMember(trust_pb2.RevokeMemberRequest(name="node:n1"))
        answered = time.monotonic()
        code, details = await _end_of(call)
        assert time.monotonic() - answered < 1
        assert (code, "was removed from this cluster" in details) == (grpc.StatusCode.UNAUTHENTICATED, True)
    for process in (pair.leader, pair.follower):
        async with dialed(process, own) as channel:
            call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()  # type: ignore[call-arg]
            code, _ = await _end_of(call)
            assert code is grpc.StatusCode.UNAUTHENTICATED


async def _end_of(call: "grpc.aio.StreamStreamCall[object, object]") -> tuple[grpc.StatusCode, str]:
    """How a stream ends, whatever comes before."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            continue
    return await call.code(), await call.details() or ""


@aio.bounded(120)
async def test_each_says_what_it_can_do_now(pair: Pair) -> None:
    """A follower holds no sessions. Without its store an instance reads and writes nothing, and says so to whoever asks
    and to whoever watches; with it again, it does.
    """
    async with dialed(pair.leader, pair.admin) as first, dialed(pair.follower, pair.admin) as second:
        lead, follow = health_pb2_grpc.HealthStub(first), health_pb2_grpc.HealthStub(second)
        for service, at_leader, at_follower in (
            (SERVER, SERVING, SERVING),
            (CONTROL, SERVING, SERVING),
            (DISPATCHER, SERVING, NOT_SERVING),
        ):
            assert await _asked(lead, service) == at_leader, service
            assert await _asked(follow, service) == at_follower, service
        watch = lead.Watch(health_pb2.HealthCheckRequest(service=CONTROL))
        assert (await watch.read()).status == SERVING
        pair.store.kill()
        try:
            assert (await aio.within(20, watch.read(), what="it says that it cannot")).status == NOT_SERVING
            assert await _asked(lead, CONTROL) == NOT_SERVING
            assert await _asked(lead, SERVER) == SERVING
        finally:
            pair.store.start()
        assert (await aio.within(20, watch.read(), what="it says that it can again")).status == SERVING
        watch.cancel()


async def _asked(stub: health_pb2_grpc.HealthStub, service: str) -> int:
    status: int = (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)).status
    return status

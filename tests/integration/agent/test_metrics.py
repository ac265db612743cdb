"""What Prometheus reads of a node, and who else does, while an agent runs containers for a real control plane."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agent.errors import Temporary
from agent.letin import KEPT_MS
from agent.members import Members
from agent.readers import MAX_KNOWN, Readers
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2, trust_pb2
from telemetry import health as telemetry_health
from tests.integration.agent.conftest import REPOSITORY, Node
from tests.integration.agent.test_trust import imported, joined
from tests.support import aio, api_world, instances, scraping, trusted

URL = "https://node.orch:7403/metrics"


async def scraped(node: Node, folder: Path, *more: str) -> str:
    """What somebody with that folder reads, from the node's own network; `exit …` when nothing."""
    certificate = str(folder / "identity.pem")
    return await asyncio.to_thread(
        node.run,
        *("curl", "-sS", "--max-time", "10", "--resolve", f"node.orch:7403:{node.address}"),
        *("--cacert", str(folder / "roots.pem"), "--cert", certificate, "--key", certificate, *more, URL),
    )


@pytest.mark.root
@aio.bounded(150)
async def test_a_node_tells_of_its_tasks_to_whom_the_control_plane_lets(tmp_path: Path, node: Node) -> None:
    """And promtool has nothing to say against it. Who is put out reads nothing more."""
    socket = f"unix:{tmp_path}/cp.sock"
    async with trusted.cluster(tmp_path, also=socket) as made:
        assert (await joined(made, node, made.tokens["node_token"])).returncode == 0
        await made.person("ann", "viewer")
        await made.person("bob", "viewer", "shop")
        node.options = ["--trust", str(node.state / "trust")]
        node.start(socket)
        await imported(made)
        async with made.control(made.admin) as stub:
            service = api_world.service(image="sleep:1", replicas=2)
            await stub.Apply(pb.ApplyRequest(objects=[objects_pb2.Object(service=service)]))
            await instances.settled(stub, "web")
        page = await scraped(node, tmp_path / "ann")
        assert not scraping.problems(page)
        found = scraping.values(page)
        assert found['orch_node_tasks{state="running"}'] == 2
        assert found["orch_node_session"] == 1
        assert found['orch_container_starts_total{outcome="started"}'] == 2
        assert found["orch_container_start_seconds_count"] == 2
        assert found["orch_image_store_bytes"] > 100_000
        assert found['orch_image_fetched_bytes_total{source="controlplane"}'] > 100_000
        memory = {name: value for name, value in found.items() if name.startswith("orch_task_memory_bytes{")}
        assert len(memory) == 2
        assert all('namespace="default",service="web",task="web-' in name for name in memory)
        assert all(value > 4096 for value in memory.values())
        refused = await scraped(node, tmp_path / "bob")
        assert "viewer bob may not call metrics in all namespaces at once" in refused
        assert "may not call metrics" in await scraped(node, node.state / "trust")
        trusted.found(tmp_path / "other")
        (tmp_path / "other" / "admin" / "roots.pem").write_bytes((tmp_path / "ann" / "roots.pem").read_bytes())
        assert (await scraped(node, tmp_path / "other" / "admin")).startswith("exit")
        assert (await scraped(node, tmp_path / "ann", "--tls-max", "1.2")).startswith("exit")
        async with made.trust(made.admin) as admin:
            await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name="person:ann"))
        async with asyncio.timeout(KEPT_MS / 1000 + 5):
            while "was removed from this cluster" not in await scraped(node, tmp_path / "ann"):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.5)


HEALTH = """
import json, sys
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pathlib import Path
from trust import credentials
from trust.core.identity import Role
from trust.folder import Folder

own = Folder(Path(sys.argv[1])).load()
options = credentials.channel_options(Role.NODE)
found = {}
with grpc.secure_channel("127.0.0.1:7402", credentials.channel(own), options=options) as channel:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "orch.v1.Dispatcher", "nobody"):
        try:
            found[service] = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status
        except grpc.RpcError as error:
            found[service] = error.code().name + ": " + error.details()
print(json.dumps(found))
"""


async def health(node: Node, folder: Path) -> dict[str, object]:
    """What a node says to a member, from its own network."""
    command = ["nsenter", f"--net={node.namespace}", sys.executable, "-c", HEALTH, str(folder)]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.root
@aio.bounded(100)
async def test_a_node_answers_for_its_health_to_members_alone(tmp_path: Path, node: Node) -> None:
    """A control plane and a viewer are answered; one who is bound to a namespace is not."""
    socket = f"unix:{tmp_path}/cp.sock"
    serving = health_pb2.HealthCheckResponse.SERVING
    async with trusted.cluster(tmp_path, also=socket) as made:
        assert (await joined(made, node, made.tokens["node_token"])).returncode == 0
        await made.person("ann", "viewer")
        await made.person("bob", "viewer", "shop")
        node.options = ["--trust", str(node.state / "trust")]
        node.start(socket)
        await aio.until(lambda: bool(node.logged("session")), what="the agent has a session", timeout_s=20)
        for name in ("ann", "cp"):
            answer = await health(node, tmp_path / name)
            assert (answer[""], answer["orch.v1.Dispatcher"]) == (serving, serving)
            assert "NOT_FOUND" in str(answer["nobody"])
        assert "PERMISSION_DENIED: viewer bob may not" in str((await health(node, tmp_path / "bob"))[""])


@aio.bounded(60)
async def test_a_control_plane_answers_for_its_health_to_everybody_who_belongs_to_the_cluster(tmp_path: Path) -> None:
    """Check, List and Watch: whether it serves, knows the store, and leads."""
    serving, unknown = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    async with trusted.cluster(tmp_path) as made:
        node, bound = await made.join("n1"), await made.person("bob", "viewer", "shop")
        for own in (node, bound, made.admin):
            async with made.channel(own) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                said = await stub.List(health_pb2.HealthListRequest())
                assert {name: one.status for name, one in said.statuses.items()} == dict.fromkeys(
                    ["", "orch.v1.Control", "orch.v1.Dispatcher"], serving
                )
                for name, status in (("orch.v1.Control", serving), ("nobody", unknown)):
                    call = stub.Watch(health_pb2.HealthCheckRequest(service=name))
                    assert (await call.read()).status == status
                    call.cancel()
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
                assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@aio.bounded(20)
async def test_who_watches_a_nodes_health_is_told_once_they_may_no_more(tmp_path: Path) -> None:
    refusals, server = [""], grpc.aio.server()

    async def refusal(_: object) -> str:
        return refusals[-1]

    telemetry_health.add(server, telemetry_health.Health({"": lambda: True}, refusal))
    server.add_insecure_port(f"unix:{tmp_path}/health")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/health") as channel:
            call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
            refusals.append("viewer ann was removed")
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await call.read()
            assert (ended.value.code(), ended.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, refusals[-1])
    finally:
        await server.stop(grace=None)


@aio.bounded(10)
async def test_who_was_let_in_is_let_in_while_the_control_plane_is_away_and_nobody_else() -> None:
    answers: dict[str, str] = {"ann": "", "bob": "no"}
    asked, now = [], [1_000_000]

    async def ask(pem: str) -> str:
        asked.append(pem)
        if not answers:
            raise Temporary("it does not answer")
        return answers[pem]

    readers = Readers(ask, Members(frozenset), lambda: now[0])
    assert (await readers.refusal("ann"), await readers.refusal("bob")) == ("", "no")
    assert (await readers.refusal("ann"), asked) == ("", ["ann", "bob"])
    now[0] += KEPT_MS
    said, answers["ann"] = answers["ann"], "out"
    assert await readers.refusal("ann") == "out"
    answers["ann"] = said
    assert await readers.refusal("ann") == ""
    answers.clear()
    now[0] += 100 * KEPT_MS
    assert await readers.refusal("ann") == ""
    assert "nobody can say now" in await readers.refusal("bob")


@aio.bounded(10)
async def test_what_is_remembered_of_readers_is_bounded() -> None:
    async def ask(_pem: str) -> str:
        return ""

    readers = Readers(ask, Members(frozenset), lambda: 0)
    for number in range(3 * MAX_KNOWN):
        assert await readers.refusal(str(number)) == ""
    assert len(readers._let_in) == MAX_KNOWN

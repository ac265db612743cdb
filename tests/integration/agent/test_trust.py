"""A real agent with a certificate: it joins, runs what it is given, and is put out, while its containers live on."""

import asyncio
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2, trust_pb2
from tests.integration.agent.conftest import BUSYBOX, REPOSITORY, Node
from tests.support import aio, api_world, instances, trusted

pytestmark = pytest.mark.root


def archive() -> bytes:
    """A root file system with busybox."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
    return data.getvalue()


async def imported(made: trusted.Cluster) -> None:
    options = pb.ImportImageOptions(name="sleep:1", cmd=["/bin/busybox", "sleep", "1000"])
    whole = archive()
    chunks = [whole[start : start + 1_000_000] for start in range(0, len(whole), 1_000_000)]
    messages = [
        pb.ImportImageRequest(options=options),
        *(pb.ImportImageRequest(chunk=chunk) for chunk in chunks),
        pb.ImportImageRequest(end=True),
    ]
    async with made.control(made.admin) as stub:
        await stub.ImportImage(iter(messages))


async def joined(made: trusted.Cluster, node: Node, token: str) -> subprocess.CompletedProcess[str]:
    """`orchctl node join`, as it becomes."""
    command = [*(sys.executable, "-m", "agent.join"), f"--token={token}", f"--door={made.door}"]
    command += [f"--state={node.state}", f"--name={node.name}"]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )


@aio.bounded(120)
async def test_an_agent_with_a_certificate_runs_what_it_is_given(tmp_path: Path, node: Node) -> None:
    """Everything goes over TLS: assignments, the image, reports. Put out, it loses its session, and its containers
    live on.
    """
    socket = f"unix:{tmp_path}/cp.sock"
    async with trusted.cluster(tmp_path, also=socket) as made:
        done = await joined(made, node, made.tokens["node_token"])
        assert done.returncode == 0, done.stderr
        node.options = ["--trust", str(node.state / "trust")]
        node.start(socket)
        await imported(made)
        service = objects_pb2.Object(service=api_world.service(image="sleep:1", replicas=1))
        async with made.control(made.admin) as stub:
            await stub.Apply(pb.ApplyRequest(objects=[service]))
            try:
                settled = await instances.settled(stub, "web")
            except (TimeoutError, AssertionError):
                pytest.fail(node.log()[-6000:])
        assert settled.status.ready == 1
        (before,) = node.containers().values()
        (member,) = (name for name in made.standing.registry.members if name.startswith("node:"))
        async with made.trust(made.admin) as admin:
            await admin.RevokeMember(trust_pb2.RevokeMemberRequest(name=member))
        await aio.until(lambda: "was removed from this cluster" in node.log(), what="the agent is told", timeout_s=20)
        assert list(node.containers().values()) == [before]


@aio.bounded(60)
async def test_an_agent_with_another_node_s_folder_does_not_start(tmp_path: Path, nodes: list[Node]) -> None:
    """It says which of both is of which node, before it touches anything."""
    one, two = nodes
    async with trusted.cluster(tmp_path) as made:
        for each in nodes:
            assert (await joined(made, each, made.tokens["node_token"])).returncode == 0
        two.options = ["--trust", str(one.state / "trust")]
        two.start(made.address)
        assert two.agent is not None
        code = await asyncio.to_thread(two.agent.wait, 30)
        assert code == 1
        assert "is of the node" in two.log()
        assert "join anew" in two.log()

"""A real agent and a control plane of which each hears from the other only what a release before knew.

So it is with an agent that is upgraded first, and with one that is upgraded last. What is recorded of a release is its
words and not its programs: that the older program itself does well with them is seen when an installation is upgraded.
"""

import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from controlplane.store import memory
from protos import wire
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2
from tests.integration.agent.conftest import BUSYBOX, Node
from tests.support import aio, api_world, instances, oldrelease

pytestmark = pytest.mark.root

RELEASED = wire.released()
A_WHILE_S = 40


@aio.bounded(200)
@pytest.mark.parametrize("version", RELEASED)
async def test_tasks_run_are_entered_and_adopted_and_end_in_the_words_of_a_release_before(
    version: str, tmp_path: Path, node: Node
) -> None:
    """The image too comes in them; and an agent that is killed and started again finds its containers."""
    store, here = memory.MemoryStore(), f"unix:{tmp_path}/between.sock"
    async with (
        instances.instances(store, tmp_path, "one") as (one,),
        oldrelease.between(RELEASED[version], one.address, here) as between,
        one.stub() as stub,
    ):
        await stub.ImportImage(iter(_image()))
        node.start(here)
        await stub.Apply(api_world.apply_request(api_world.service(image="sleep:1", replicas=2)))
        before = await _running(node, 2)
        assert await _said_inside(stub) == b"inside\n"
        node.kill()
        node.start(here)
        await stub.Scale(pb.ScaleRequest(reference=_WEB, replicas=3))
        after = await _running(node, 3)
        assert before.items() <= after.items(), "those that ran run on"
        await stub.Delete(pb.DeleteRequest(reference=_WEB))
        await _running(node, 0)
    assert "/orch.v1.Dispatcher/Session" in between.passed
    assert not between.refused, "what an agent calls without certificates was there in each release"


_WEB = pb.ObjectReference(kind="service", namespace="default", name="web")


async def _running(node: Node, count: int) -> dict[str, int]:
    """The containers and their processes, once there are so many."""
    try:
        await aio.until(lambda: len(node.containers()) == count, what=f"{count} containers run", timeout_s=A_WHILE_S)
    except AssertionError:
        print(node.log()[-6000:])
        raise
    return node.containers()


async def _said_inside(stub: "instances.control_pb2_grpc.ControlAsyncStub") -> bytes:
    """What a command in one of the tasks prints, once the control plane knows that all run."""
    listed = await instances.eventually(lambda: stub.List(pb.ListRequest(kind="task")), _all_run)
    command = ["/bin/busybox", "echo", "inside"]
    start = pb.ExecStart(namespace="default", target=listed.objects[0].task.meta.name, command=command)
    answers = [answer async for answer in stub.Exec(iter([pb.ExecRequest(start=start)]))]
    return b"".join(answer.stdout for answer in answers)


def _all_run(listed: pb.ListResponse) -> bool:
    return all(one.task.status.state == objects_pb2.TASK_STATE_RUNNING for one in listed.objects)


def _image() -> list[pb.ImportImageRequest]:
    """busybox, asleep."""
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(BUSYBOX, "bin/busybox")
    options = pb.ImportImageOptions(name="sleep:1", cmd=["/bin/busybox", "sleep", "1000"])
    whole = data.getvalue()
    chunks = (whole[start : start + 1_000_000] for start in range(0, len(whole), 1_000_000))
    return [
        pb.ImportImageRequest(options=options),
        *(pb.ImportImageRequest(chunk=chunk) for chunk in chunks),
        pb.ImportImageRequest(end=True),
    ]

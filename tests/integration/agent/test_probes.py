"""Probes and draining with real containers: when a task is ready, when it is restarted, and in which order it ends."""

import asyncio
import os
import signal
import time

import pytest

from images.store import ImageStore
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.agent.conftest import Node, led
from tests.support.aio import bounded, until
from tests.support.fake_leader import FakeLeader, task, template

pytestmark = pytest.mark.root

SHUTDOWN = pb.DESIRED_STATE_SHUTDOWN
HTTP = pb.Probe(http=pb.HttpProbe(port="web", path="/cgi-bin/index"))
TCP = pb.Probe(tcp=pb.TcpProbe(port="80"))
EXEC = pb.Probe(exec=pb.ExecProbe(command=["sh", "-c", "test -e /well || { echo not yet; exit 4; }"]))

TURNS_WELL = """
trap 'httpd -p 80 -h /www; touch /well' USR1
echo waiting
while :; do sleep 0.05; done
"""
"""Answers everything after SIGUSR1, and nothing before."""

TURNS_BAD = """
httpd -f -p 80 -h /www & server=$!
trap 'kill $server' USR1
trap 'echo stopped; sleep 0.5; exit 0' TERM
while :; do sleep 0.05; done
"""
"""Answers until SIGUSR1, and goes on without a server. Its end takes long enough for a report of why it is to end."""

COMES_UP_LATE = "sleep 1.5; exec httpd -f -p 80 -h /www"

SERVES_TO_THE_END = """
trap 'echo got TERM; exit 0' TERM
httpd -f -p 80 -h /www &
while :; do sleep 0.05; done
"""


def made(script: str, **questions: pb.Probe) -> pb.TaskTemplate:
    """A container with a port named `web`; its questions are asked every 100 ms."""
    one = template("sh", "-c", script, drain_seconds=1)
    one.stop_grace_period = 1_000
    one.container.ports.add(name="web", target=80, protocol=pb.PROTOCOL_TCP)
    for name, question in questions.items():
        probe = getattr(one.container.probes, name)
        probe.MergeFrom(pb.Probe(interval=100, timeout=1_000, success_threshold=1, failure_threshold=3))
        probe.MergeFrom(question)
    return one


async def says(node: Node, line: str, *, task_id: str = "web-1-a") -> None:
    """Wait for a line of a container."""
    log = node.state / f"tasks/{task_id}/log"
    await until(lambda: log.exists() and line in log.read_text(), what=f"{task_id} says {line!r}", timeout_s=10)


async def never_ready(leader: FakeLeader, message: str) -> pb.TaskStatus:
    status = await leader.until("web-1-a", lambda now: now.message == message, what=f"it says: {message}")
    assert not any(one.ready for one in leader.history["web-1-a"])
    return status


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (HTTP, "HTTP GET /cgi-bin/index on port web: connection refused"),
        (TCP, "TCP connection to port 80: connection refused"),
        (
            EXEC,
            "command sh -c 'test -e /well || { echo not yet; exit 4; }': exit code 4: not yet",
        ),
    ],
    ids=["http", "tcp", "exec"],
)
@bounded(60)
async def test_not_ready_until_it_answers(node: Node, store: ImageStore, question: pb.Probe, message: str) -> None:
    """It runs, and says why it is not ready; with the first good answer it is."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=made(TURNS_WELL, readiness=question))
        await says(node, "waiting")
        status = await never_ready(leader, f"readiness probe failed: {message}")
        assert (status.state, status.reason) == (states.RUNNING, "NotReady")
        os.kill(node.containers()["web-1-a"], signal.SIGUSR1)
        status = await leader.running("web-1-a")
        assert (status.message, status.reason, status.restarts) == ("", "", 0)


@bounded(60)
async def test_a_container_that_does_not_live_is_restarted(node: Node, store: ImageStore) -> None:
    """It gets its stop signal, and another one takes its place, with the same address."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=made(TURNS_BAD, liveness=HTTP, readiness=HTTP))
        before = await leader.running("web-1-a")
        os.kill(node.containers()["web-1-a"], signal.SIGUSR1)
        why = "liveness probe failed: HTTP GET /cgi-bin/index on port web: connection refused"
        after = await leader.until("web-1-a", lambda now: now.restarts == 1 and now.ready, what="it is back")
        assert (after.address, after.exit_code, after.message) == (before.address, 0, "")
        await says(node, "stopped")
        reasons = {one.reason for one in leader.history["web-1-a"] if one.message.startswith(why)}
        assert reasons == {"ProbeFailed"}


@bounded(60)
async def test_one_that_never_starts_fails(node: Node, store: ImageStore) -> None:
    """With `never`, exit code 0 after the stop signal is no success."""
    async with led(node, store) as leader:
        one = made("trap 'exit 0' TERM; while :; do sleep 0.05; done", startup=TCP)
        one.restart.condition = pb.RESTART_CONDITION_NEVER
        await leader.assign(task("web-1-a"), template=one)
        status = await leader.until("web-1-a", lambda now: now.state == states.FAILED, what="it fails")
        assert (status.reason, status.exit_code, status.restarts) == ("ProbeFailed", 0, 0)
        assert status.message == "startup probe failed: TCP connection to port 80: connection refused"


@bounded(60)
async def test_startup_protects_a_slow_start(node: Node, store: ImageStore) -> None:
    """Liveness alone would have ended it after 300 ms."""
    async with led(node, store) as leader:
        one = made(COMES_UP_LATE, startup=TCP, liveness=TCP)
        one.container.probes.startup.failure_threshold = 100
        await leader.assign(task("web-1-a"), template=one)
        status = await leader.running("web-1-a")
        assert status.restarts == 0
        assert not any(one.restarts for one in leader.history["web-1-a"])


@bounded(60)
async def test_a_dead_agent_makes_nothing_unready(node: Node, store: ImageStore) -> None:
    """The next one takes over what was ready, and hears of what is not so any more."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=made(TURNS_BAD, readiness=HTTP))
        await leader.running("web-1-a")
        node.kill(signal.SIGKILL)
        leader.statuses.clear()
        leader.history.clear()
        node.start(leader.address)
        await leader.running("web-1-a")
        assert all(one.ready for one in leader.history["web-1-a"])
        os.kill(node.containers()["web-1-a"], signal.SIGUSR1)
        await leader.until("web-1-a", lambda now: not now.ready, what="its probe says otherwise")


@bounded(60)
async def test_the_order_of_an_end(node: Node, store: ImageStore) -> None:
    """Not ready; withdrawn by every node; the time for its connections; and only then the signal."""
    async with led(node, store) as leader:
        leader.withdraws = False
        await leader.assign(task("web-1-a"), template=made(SERVES_TO_THE_END, readiness=HTTP))
        status = await leader.running("web-1-a")
        page = f"http://{status.address}/cgi-bin/index"
        await leader.assign(task("web-1-a", desired=SHUTDOWN))
        draining = await leader.until("web-1-a", lambda now: now.reason == "Draining", what="it drains")
        assert (draining.ready, draining.message, draining.state) == (False, "draining connections", states.RUNNING)
        assert "web-1-a" in await node.get(page)
        withdrawn_at = time.time()
        await leader.withdraw("web-1-a")
        log = node.state / "tasks/web-1-a/log"
        served = 0
        while time.time() - withdrawn_at < 0.8:
            assert "web-1-a" in await node.get(page)
            assert "got TERM" not in log.read_text()
            served += 1
            await asyncio.sleep(0.05)
        assert served > 2
        await says(node, "got TERM")
        over = await leader.until("web-1-a", lambda now: now.state == states.SHUTDOWN, what="it is shut down")
        assert 1_000 <= over.finished_at - withdrawn_at * 1000 < 2_500


@bounded(60)
async def test_an_end_that_nobody_confirms(node: Node, store: ImageStore) -> None:
    """Ten seconds, and the time for its connections; an agent that dies meanwhile begins nothing anew."""
    async with led(node, store) as leader:
        leader.withdraws = False
        await leader.assign(task("web-1-a"), template=made(SERVES_TO_THE_END))
        await leader.running("web-1-a")
        asked_at = time.time()
        await leader.assign(task("web-1-a", desired=SHUTDOWN))
        await leader.until("web-1-a", lambda now: now.reason == "Draining", what="it drains")
        node.kill(signal.SIGKILL)
        node.start(leader.address)
        over = await leader.until(
            "web-1-a", lambda now: now.state == states.SHUTDOWN, what="it is shut down", timeout_s=30
        )
        assert 11_000 <= over.finished_at - asked_at * 1000 < 13_000

"""What an agent promises for the containers of its node, shown with real ones."""

import os
import signal
from pathlib import Path

import pytest

from images.store import ImageStore
from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.integration.agent.conftest import Node, gone, led, link
from tests.support.aio import bounded, until
from tests.support.fake_leader import endpoint, service, task, template

pytestmark = pytest.mark.root

SHUTDOWN, REMOVE = pb.DESIRED_STATE_SHUTDOWN, pb.DESIRED_STATE_REMOVE


def web(**more: object) -> pb.TaskTemplate:
    """A web server, which as process 1 does not listen to SIGTERM."""
    made = template(**more)
    made.stop_grace_period = 200
    return made


@bounded(60)
async def test_an_assigned_task_runs_and_answers(node: Node, store: ImageStore) -> None:
    """Image fetched, network made, container started, everything reported; and nothing is left after the end."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=web())
        status = await leader.running("web-1-a")
        assert await node.get(f"http://{status.address}/cgi-bin/index") == f"web-1-a on n1 at {status.address}\n"
        await leader.assign(task("web-1-a", desired=REMOVE))
        await leader.until("web-1-a", lambda now: now.state == states.SHUTDOWN, what="it is shut down")
        await until(lambda: not (node.state / "tasks/web-1-a").exists(), what="its files are removed")
        assert node.containers() == {}
        assert "orch-" not in node.run("ip", "link")


@bounded(60)
async def test_a_crash_is_restarted_in_place(node: Node, store: ImageStore) -> None:
    """At once, with the same address, and the exit code and the count are reported."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=web())
        before = await leader.running("web-1-a")
        os.kill(node.containers()["web-1-a"], signal.SIGKILL)
        after = await leader.until("web-1-a", lambda now: now.restarts == 1 and now.ready, what="it runs again")
        assert (after.address, after.exit_code, after.state) == (before.address, 137, states.RUNNING)
        assert after.started_at - after.finished_at < 500, "the first restart is immediate"
        await node.get(f"http://{after.address}/cgi-bin/index")


@bounded(60)
async def test_a_task_that_keeps_failing_fails(node: Node, store: ImageStore) -> None:
    """After its attempts it is FAILED with the last exit code, and holds nothing any more."""
    async with led(node, store) as leader:
        made = template("sh", "-c", "exit 7")
        made.restart.attempts = 1
        await leader.assign(task("bad-1-a"), template=made)
        status = await leader.until("bad-1-a", lambda now: now.state == states.FAILED, what="it fails")
        assert (status.exit_code, status.restarts, status.reason, status.address) == (7, 1, "ExitCode", "")
        assert "orch-" not in node.run("ip", "link")


@bounded(60)
async def test_out_of_memory_is_told_with_the_limit(node: Node, store: ImageStore) -> None:
    """Between restarts and at the end: what happened, and the number to raise."""
    async with led(node, store) as leader:
        made = template("tail", "/dev/zero")
        made.container.resources.limits.memory = 16 << 20
        made.restart.attempts = 1
        await leader.assign(task("fat-1-a"), template=made)
        status = await leader.until("fat-1-a", lambda now: now.state == states.FAILED, what="it fails")
        assert (status.exit_code, status.oom_killed, status.reason) == (137, True, "OutOfMemory")
        assert status.message == "killed: out of memory, its limit is 16Mi, after 1 restart"


@bounded(60)
async def test_job_like_tasks_complete(node: Node, store: ImageStore) -> None:
    """With `on-failure`, exit code 0 is the end; also when it comes before anybody looked."""
    async with led(node, store) as leader:
        made = template("true")
        made.restart.condition = pb.RESTART_CONDITION_ON_FAILURE
        names = [f"job-{number}-a" for number in range(20)]
        await leader.assign(*(task(name) for name in names), template=made)
        for name in names:
            status = await leader.until(name, lambda now: now.state == states.COMPLETE, what=f"{name} completes")
            assert (status.exit_code, status.restarts) == (0, 0)


@pytest.mark.parametrize(
    ("made", "state", "reason", "words"),
    [
        (template(image="nowhere:9"), states.REJECTED, "ImageMissing", "orchctl image push"),
        (template("/no/such/program"), states.FAILED, "StartFailed", "does not exist in the container"),
    ],
    ids=["image", "program"],
)
@bounded(60)
async def test_what_cannot_run_says_why(
    node: Node, store: ImageStore, made: pb.TaskTemplate, state: int, reason: str, words: str
) -> None:
    """The reason is one word for programs, the message one sentence with the remedy."""
    made.restart.attempts = 0
    async with led(node, store) as leader:
        await leader.assign(task("bad-1-a"), template=made)
        status = await leader.until("bad-1-a", lambda now: states.is_terminal(now.state), what="it ends")
        assert (status.state, status.reason) == (state, reason)
        assert words in status.message


@bounded(60)
async def test_agent_killed_and_started_again_adopts(node: Node, store: ImageStore) -> None:
    """`kill -9`, start: the same pids, nothing restarted; what died meanwhile is reported with its exit code."""
    async with led(node, store) as leader:
        made = template("sh", "-c", 'trap "exit 42" USR1; while :; do echo "$ORCH_TASK"; sleep 0.1 & wait; done')
        await leader.assign(task("web-1-a"), task("web-2-b"), template=made)
        await leader.running("web-1-a")
        await leader.running("web-2-b")
        before = node.containers()
        node.kill(signal.SIGKILL)
        os.kill(before["web-2-b"], signal.SIGUSR1)
        await gone(before["web-2-b"])
        leader.statuses.clear()
        node.start(leader.address)
        adopted = await leader.running("web-1-a")
        replaced = await leader.running("web-2-b")
        assert node.containers()["web-1-a"] == before["web-1-a"]
        assert adopted.restarts == 0
        assert (replaced.restarts, replaced.exit_code) == (1, 42)


@bounded(60)
async def test_an_agent_needs_no_leader(node: Node, store: ImageStore) -> None:
    """Started without a control plane it keeps its assignment: what runs goes on, what died is started again."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), task("web-2-b"), template=web())
        await leader.running("web-1-a")
        await leader.running("web-2-b")
        await leader.stop()
        node.kill(signal.SIGKILL)
        before = node.containers()
        os.kill(before["web-2-b"], signal.SIGKILL)
        await gone(before["web-2-b"])
        node.start(leader.address)
        # Its monitor may take a moment to say that it has ended; until then the old pid is listed.
        known = {None, before["web-2-b"]}
        await until(
            lambda: node.containers().get("web-2-b") not in known, what="the container that died is back", timeout_s=10
        )
        assert node.containers()["web-1-a"] == before["web-1-a"]


@bounded(60)
async def test_sigterm_ends_the_agent_and_nothing_else(node: Node, store: ImageStore) -> None:
    """An agent that is upgraded leaves every container running."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=web())
        await leader.running("web-1-a")
        before = node.containers()
        assert node.kill(signal.SIGTERM) == 0
        assert node.containers() == before


@bounded(60)
async def test_what_the_leader_forgot_is_removed(node: Node, store: ImageStore) -> None:
    """Removed while the agent was away: stopped and forgotten on return."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=web())
        await leader.running("web-1-a")
        node.kill(signal.SIGKILL)
        await leader.remove("web-1-a")
        node.start(leader.address)
        await until(lambda: node.containers() == {}, what="the container is stopped", timeout_s=10)
        await until(lambda: not (node.state / "tasks/web-1-a").exists(), what="its files are removed")


@bounded(60)
async def test_launcher_killed(node: Node, store: ImageStore) -> None:
    """Containers are not touched, and the next start makes a new launcher."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=web())
        await leader.running("web-1-a")
        before = node.containers()
        (launcher,) = [line["pid"] for line in node.logged("launcher started")]
        os.kill(launcher, signal.SIGKILL)
        await leader.assign(task("web-2-b"))
        await leader.running("web-2-b")
        assert node.containers()["web-1-a"] == before["web-1-a"]


@bounded(60)
async def test_a_published_port_leads_to_the_task(node: Node, store: ImageStore) -> None:
    """From the node itself, by its address and by localhost, from another task, and no more after the end."""
    async with led(node, store) as leader:
        made = web()
        made.container.ports.add(target=80, published=8080, protocol=pb.PROTOCOL_TCP)
        node.run("ip", "addr", "add", "198.51.100.7/32", "dev", "lo")
        await leader.assign(task("web-1-a"), template=made)
        await leader.running("web-1-a")
        for host in ("127.0.0.1", "198.51.100.7", "10.112.1.1"):
            assert "web-1-a" in await node.get(f"http://{host}:8080/cgi-bin/index")
        client_script = "while ! wget -qO- http://10.112.1.1:8080/cgi-bin/index; do sleep 0.1; done; sleep 100"
        other = pb.Revision(meta=pb.Meta(id="r2"), template=template("sh", "-c", client_script))
        await leader.assign(task("client-1-c", revision="r2"), template=other.template)
        log = node.state / "tasks/client-1-c/log"
        await until(lambda: log.exists() and "web-1-a on n1" in log.read_text(), what="a task reaches it", timeout_s=10)
        await leader.assign(task("web-1-a", desired=SHUTDOWN))
        await leader.until("web-1-a", lambda now: now.state == states.SHUTDOWN, what="it is shut down")
        assert node.run("curl", "-s", "--max-time", "1", "http://127.0.0.1:8080/").startswith("exit")
        assert "8080" not in node.run("nft", "list", "ruleset")


@bounded(60)
async def test_a_port_that_is_taken_is_waited_for(node: Node, store: ImageStore) -> None:
    """The status says whose it is, and the task runs once it is free."""
    async with led(node, store) as leader:
        made = web()
        made.container.ports.add(target=80, published=8080, protocol=pb.PROTOCOL_TCP)
        await leader.assign(task("web-1-a"), template=made)
        await leader.running("web-1-a")
        await leader.assign(task("web-2-b"))
        waiting = await leader.until("web-2-b", lambda now: now.reason == "PortTaken", what="it waits")
        assert waiting.message == "port 8080 of this node is taken by task web-1-a"
        await leader.assign(task("web-1-a", desired=SHUTDOWN))
        await leader.running("web-2-b")


@bounded(60)
async def test_tasks_of_two_nodes_reach_each_other(nodes: list[Node], store: ImageStore) -> None:
    """Over plain routes, with their own addresses at both ends."""
    one, other = nodes
    link(one, other)
    async with led(one, store) as leader, led(other, store) as second:
        for here, there, number in ((leader, other, 1), (second, one, 2)):
            here.network.subnet = f"10.112.{number}.0/24"
            here.network.peers.add(node_id="x", address=there.address, subnet=f"10.112.{3 - number}.0/24")
            await here.announce_network()
        await leader.assign(task("web-1-a"), template=web())
        status = await leader.running("web-1-a")
        script = f"while ! wget -qO- http://{status.address}/cgi-bin/index; do sleep 0.1; done; sleep 100"
        await second.assign(task("client-1-c"), template=template("sh", "-c", script))
        client = await second.running("client-1-c")
        await leader.serve(service("web", endpoint(status.address), endpoint(client.address)))
        await second.serve(*leader.services.values())
        log = other.state / "tasks/client-1-c/log"
        await until(lambda: log.exists() and "web-1-a on n1" in log.read_text(), what="the other answers", timeout_s=15)


@bounded(60)
async def test_many_tasks_at_once(node: Node, store: ImageStore) -> None:
    """Thirty tasks, one image: one download, thirty addresses."""
    async with led(node, store) as leader:
        names = [f"web-{number}-x" for number in range(30)]
        await leader.assign(*(task(name) for name in names), template=template("sleep", "100"))
        found = [await leader.running(name, timeout_s=30) for name in names]
        assert len({status.address for status in found}) == 30
        assert len(node.logged("fetching")) == 3
        assert memory_mib(node) < 80


def memory_mib(node: Node) -> float:
    """What the agent's process takes (VmRSS of proc_pid_status(5))."""
    assert node.agent is not None, "not running"
    with Path(f"/proc/{node.agent.pid}/status").open() as file:
        (line,) = [line for line in file if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@bounded(60)
async def test_services_need_no_leader(node: Node, store: ImageStore) -> None:
    """An agent that starts without a control plane sends connections where it was told last."""
    async with led(node, store) as leader:
        await leader.assign(task("web-1-a"), template=web())
        address = (await leader.running("web-1-a")).address
        port = pb.Port(target=80, protocol=pb.PROTOCOL_TCP)
        await leader.serve(service("web", endpoint(address), ports=(port,)))
        assert "web-1-a" in await node.get("http://10.113.0.1/cgi-bin/index")
        saved = node.state / "assignment.pb"
        await until(lambda: b"id-of-web" in saved.read_bytes(), what="the service is on disk")
        await leader.stop()
        node.kill(signal.SIGKILL)
        node.run("nft", "flush", "ruleset")
        assert node.run("curl", "-s", "--max-time", "1", "http://10.113.0.1/").startswith("exit")
        node.start(leader.address)
        assert "web-1-a" in await node.get("http://10.113.0.1/cgi-bin/index")


@bounded(60)
async def test_folders_deeper_than_any_stack_are_removed(node: Node, store: ImageStore) -> None:
    """The layer of a container that is started again, and in the end the whole task."""
    async with led(node, store) as leader:
        nested = "$(yes d | head -n 1500 | tr '\\n' /)"
        made = web(container=pb.Container(command=["sh", "-c", f"mkdir -p /{nested}; echo made; exec sleep 1000"]))
        await leader.assign(task("deep-1-a"), template=made)
        await leader.running("deep-1-a")
        folder = node.state / "tasks/deep-1-a"
        await until(lambda: "made" in (folder / "log").read_text(), what="it has made them")
        os.kill(node.containers()["deep-1-a"], signal.SIGKILL)
        await until(lambda: (folder / "log").read_text().count("made") == 2, what="it has made them again")
        await leader.assign(task("deep-1-a", desired=REMOVE))
        await until(lambda: not folder.exists(), what="its files are removed")

"""The way between nodes of a real cluster, by VXLAN: tasks, nodes that leave and come, the check that names faults."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from agent.core.overlay import DEVICE
from deploy.local import cluster
from protos.orch.v1.objects_pb2 import Task
from tests.support import cluster as support
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

KNOWN_WITHIN_S = 1.0
BUSY_S = 2.0
"""What a machine that runs other tests meanwhile may add."""


@pytest.fixture(scope="module")
def tunnelled() -> Iterator[LocalCluster]:
    """Three nodes that reach each other's tasks by VXLAN, although they share a segment."""
    with support.running(network_mode="vxlan") as up:
        yield up


def on(pid: int, *command: str) -> str:
    """What a command says in the network that a process is in."""
    argv = ["nsenter", f"--net=/proc/{pid}/ns/net", *command]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout


def whole(up: LocalCluster) -> bool:
    """Whether every node reaches every other, and names are answered."""
    return "broken" not in until(lambda: attempt(up), what="the check succeeds", timeout_s=15)


def attempt(up: LocalCluster) -> str | None:
    try:
        return up.orchctl("network", "check")
    except AssertionError:
        return None


def ask(up: LocalCluster, source: Task, target: Task) -> str:
    """What a task is answered by another one."""
    url = f"http://{target.status.address}:8080/"
    return up.orchctl("exec", source.meta.name, "--", "wget", "-q", "-O", "-", url)


def test_tasks_reach_each_other_through_the_tunnel(tunnelled: LocalCluster) -> None:
    """From one task, every other one answers; and packets are as large as the tunnel takes."""
    replicas = tunnelled.apply_hello("web")
    assert len({task.node_id for task in replicas}) == 3
    for task in replicas:
        assert f"task={task.meta.name} " in ask(tunnelled, replicas[0], task)
    routes = on(tunnelled.agent_pid("n1"), "ip", "route", "show", "proto", "111").splitlines()
    assert len(routes) == 2
    assert all(DEVICE in route for route in routes)
    said = tunnelled.orchctl("network", "check")
    assert said.count("packets of 1450 bytes") == 6
    assert said.count("name web.default.orch") == 3
    tunnelled.orchctl("delete", "service", "web")


def test_services_are_tried_from_every_node(tunnelled: LocalCluster) -> None:
    """By their virtual addresses; one whose tasks do not listen is named as broken, from each."""
    manifest = (
        "kind: Service\nmeta: {name: NAME}\nspec:\n  replicas: 2\n  template:\n"
        "    stopGracePeriod: 2s\n    container: {image: hello, ports: [{name: http, target: PORT}]}\n"
    )
    for name, port in (("listens", "8080"), ("deaf", "8081")):
        tunnelled.orchctl("apply", "-f", "-", text=manifest.replace("NAME", name).replace("PORT", port))
    said = tunnelled.orchctl("network", "check", code=1)
    rows = [line.split() for line in said.splitlines() if "port 80" in line]
    assert sorted((row[0], row[1], row[3], row[6]) for row in rows) == [
        (node, f"default/{name}", port, result)
        for node in ("n1", "n2", "n3")
        for name, port, result in (("deaf", "8081", "broken:"), ("listens", "8080", "ok"))
    ]
    for name in ("listens", "deaf"):
        tunnelled.orchctl("delete", "service", name)


def test_a_segment_with_less_room_is_named(tunnelled: LocalCluster) -> None:
    """One machine's cable takes 1300 bytes: both directions are broken, and what still passes is 50 less than that."""
    assert whole(tunnelled)
    lan = tunnelled.process("cp1").pid
    on(lan, "ip", "link", "set", "n2", "mtu", "1300")
    try:
        said = tunnelled.orchctl("network", "check", "--broken", code=1)
    finally:
        on(lan, "ip", "link", "set", "n2", "mtu", "1500")
    rows = [line.split()[:2] for line in said.splitlines()[1:]]
    assert rows == [["n1", "n2"], ["n2", "n1"], ["n2", "n3"], ["n3", "n2"]]
    assert said.count("packets of 1450 bytes do not pass; the largest that do have 1250") == 4
    assert whole(tunnelled)


def test_a_segment_that_swallows_the_tunnel_is_named(tunnelled: LocalCluster) -> None:
    """Nodes and the leader talk, but no packet between tasks arrives: every way is broken, and none is for long."""
    assert whole(tunnelled)
    lan = tunnelled.process("cp1").pid
    rule = "add rule bridge swallow forward udp dport 4789 drop"
    hook = "{ type filter hook forward priority 0; }"
    on(lan, "nft", f"add table bridge swallow; add chain bridge swallow forward {hook}; {rule}")
    try:
        said = tunnelled.orchctl("network", "check", "--broken", "--timeout", "200ms", code=1)
    finally:
        on(lan, "nft", "delete table bridge swallow")
    assert said.count("no answer from") == 12, "each way, for packets as for UDP"
    assert whole(tunnelled)


def test_an_entry_that_was_lost_is_put_right(tunnelled: LocalCluster) -> None:
    """Without an agent nobody does; its next start corrects it."""
    node = tunnelled.agent_pid("n1")
    before = forwarding(node)
    os.kill(node, signal.SIGSTOP)
    on(node, "bridge", "fdb", "del", before[0].split()[0], "dev", DEVICE, "self")
    assert forwarding(node) != before
    os.kill(node, signal.SIGKILL)
    until(lambda: tunnelled.agent_pid("n1") != node, what="the agent is started again")
    until(lambda: forwarding(tunnelled.agent_pid("n1")) == before, what="the entry is back")
    assert whole(tunnelled)


def forwarding(agent: int) -> list[str]:
    """The entries of a node's tunnel."""
    return sorted(on(agent, "bridge", "fdb", "show", "dev", DEVICE).splitlines())


def test_a_node_that_leaves_is_forgotten_and_one_that_joins_is_known(tunnelled: LocalCluster) -> None:
    """One that is down may come back, and keeps its place; one that was deleted is gone on every other. A node that
    joins is in the tables of the others within a second.
    """
    gone = tunnelled.nodes()["n3"]
    cluster.kill_node(tunnelled.folder, "n3")
    until(lambda: tunnelled.nodes()["n3"].state == "down", what="n3 is down", timeout_s=20)
    routes = ("ip", "route", "show", "proto", "111")
    agents = [tunnelled.agent_pid(name) for name in ("n1", "n2")]
    assert all(gone.subnet in on(agent, *routes) for agent in agents)
    assert "n3: its agent: it is down" in check_error(tunnelled)
    tunnelled.orchctl("delete", "node", "n3")
    until(lambda: not any(gone.subnet in on(agent, *routes) for agent in agents), what="n3 is forgotten")
    assert not any(gone.address in on(agent, "bridge", "fdb", "show", "dev", DEVICE) for agent in agents)
    start = threading.Thread(target=cluster.start_node, args=(tunnelled.folder, "n3"))  # it waits longer than we do
    start.start()
    back = until(lambda: (found := tunnelled.nodes().get("n3")) and found.usable and found, what="n3 is back")
    began = time.monotonic()
    until(lambda: all(back.subnet in on(agent, *routes) for agent in agents), what="n3 is known")
    took_s = time.monotonic() - began
    start.join()
    assert took_s < KNOWN_WITHIN_S + BUSY_S
    assert whole(tunnelled)


def check_error(up: LocalCluster) -> str:
    """What the check says to standard error."""
    process = up.start_orchctl("network", "check", "--broken")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1, output
    return output


def test_a_task_speaks_to_a_node_that_came_later(tunnelled: LocalCluster) -> None:
    """Services spread over all three again."""
    replicas = tunnelled.apply_hello("later")
    for source in replicas:
        for target in replicas:
            assert f"task={target.meta.name} " in ask(tunnelled, source, target)
    tunnelled.orchctl("delete", "service", "later")

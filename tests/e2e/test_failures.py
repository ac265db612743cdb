"""What breaks, and what then: the promises of the design, on a real cluster."""

import os
import signal
import time
from pathlib import Path

import pytest

from deploy.local import cluster, tasks
from protos.orch.v1 import objects_pb2
from tests.support.cluster import LocalCluster, get, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

NODE_LOSS_S = 10.0
BUSY_S = 5.0
"""What a machine that runs other tests meanwhile may add."""


def test_an_agent_killed_leaves_its_containers_alone(local: LocalCluster) -> None:
    """The same processes before and after, no restart, no line of output lost; and it takes orders again."""
    replicas = local.apply_hello("adopt")
    node = next(name for name, node in local.nodes().items() if node.id == replicas[0].node_id)
    name = replicas[0].meta.name
    pid, agent = local.container_pid(name), local.agent_pid(node)
    os.kill(agent, signal.SIGKILL)
    get(replicas[0].status.address)
    until(lambda: local.agent_pid(node) != agent, what="the agent is started again")
    until(lambda: f"{name} answers" in local.orchctl("logs", name), what="it tells what was said meanwhile")
    assert local.container_pid(name) == pid
    assert local.task(name).status.restarts == 0
    local.orchctl("scale", "adopt=6")
    assert set(names_of(replicas)) <= set(names_of(local.await_whole("adopt", 6)))
    local.orchctl("delete", "service", "adopt")


def test_a_container_that_dies_without_an_agent_is_not_forgotten(local: LocalCluster) -> None:
    """The agent finds on its return that it died, and starts it again."""
    task = local.apply_hello("orphan", replicas=1)[0]
    node = next(name for name, node in local.nodes().items() if node.id == task.node_id)
    pid, agent = local.container_pid(task.meta.name), local.agent_pid(node)
    os.kill(agent, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    os.kill(agent, signal.SIGKILL)
    until(lambda: local.task(task.meta.name).status.restarts == 1, what="the restart is reported")
    assert task.meta.name in get(task.status.address)
    assert local.container_pid(task.meta.name) != pid
    local.orchctl("delete", "service", "orphan")


def test_a_fenced_task_is_killed_on_a_node_that_is_cut_off(local: LocalCluster) -> None:
    """Its agent cannot do it: it is frozen. Nobody starts another before, and it stays dead when the agent is back."""
    fence = "  onNodeLoss: {fence: true, replaceAfter: 10s}\n"
    first = local.apply_hello("fenced", replicas=1, more=fence)[0]
    node = next(name for name, node in local.nodes().items() if node.id == first.node_id)
    pid, agent = local.container_pid(first.meta.name), local.agent_pid(node)
    os.kill(agent, signal.SIGSTOP)
    try:
        began = time.monotonic()
        until(lambda: not _is_alive(pid), what="it is killed without its agent", timeout_s=20)
        assert time.monotonic() - began >= 10 - BUSY_S, "not before its lease has ended: it counts from the last answer"
        assert [task.meta.name for task in local.tasks("fenced")] == [first.meta.name], "and before there is another"
        second = until(lambda: _other(local, first), what="another takes its place", timeout_s=20)
    finally:
        os.kill(agent, signal.SIGCONT)
    until(lambda: local.nodes()[node].state == "ready", what="the node is back", timeout_s=20)
    assert local.container_pid(second.meta.name)
    assert not _is_alive(pid)
    local.orchctl("delete", "service", "fenced")


def _other(local: LocalCluster, first: objects_pb2.Task) -> objects_pb2.Task | None:
    return next((one for one in local.tasks("fenced") if one.status.ready and one.meta.name != first.meta.name), None)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_launcher_killed_is_replaced(local: LocalCluster) -> None:
    """Running containers are not its children; new ones find another launcher."""
    replicas = local.apply_hello("launch")
    pids = [local.container_pid(name) for name in names_of(replicas)]
    for node in local.plan.node_names:
        os.kill(local.launcher_pid(node), signal.SIGKILL)
    local.orchctl("scale", "launch=6")
    local.await_whole("launch", 6)
    assert [local.container_pid(name) for name in names_of(replicas)] == pids
    local.orchctl("delete", "service", "launch")


def test_a_control_plane_killed_restarts_no_task(local: LocalCluster) -> None:
    """Everything that it needs to know is in the store or with the agents."""
    replicas = local.apply_hello("steady")
    pids = [local.container_pid(name) for name in names_of(replicas)]
    before = local.process("cp1")
    before.signal(signal.SIGKILL)
    assert before.wait(5)
    until(lambda: _answers(local), what="the control plane answers again", timeout_s=20)
    local.orchctl("scale", "steady=4")
    assert set(names_of(replicas)) <= set(names_of(local.await_whole("steady", 4)))
    assert [local.container_pid(name) for name in names_of(replicas)] == pids
    assert all(local.task(name).status.restarts == 0 for name in names_of(replicas))
    local.orchctl("delete", "service", "steady")


def _answers(local: LocalCluster) -> bool:
    try:
        return all(node.state == "ready" for node in local.nodes().values())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is not an answer yet
        return not str(error)


def test_a_lost_node_is_made_up_for_and_welcomed_back(local: LocalCluster) -> None:
    """Its replicas run elsewhere within ten seconds; when it returns, its old tasks are gone and it takes new ones."""
    local.apply_hello("survive", replicas=6)
    lost = local.nodes()["n2"].id
    began = time.monotonic()
    cluster.kill_node(local.folder, "n2")
    replicas = local.await_whole("survive", 6, but_not_on=lost, timeout_s=NODE_LOSS_S + BUSY_S)
    took_s = time.monotonic() - began
    assert all(get(task.status.address) for task in replicas)
    assert took_s < NODE_LOSS_S + BUSY_S
    cluster.start_node(local.folder, "n2")
    assert local.nodes()["n2"].state == "ready"
    local.orchctl("scale", "survive=9")
    replicas = local.await_whole("survive", 9)
    assert lost in {task.node_id for task in replicas}, "the node that returned takes nothing"
    local.orchctl("delete", "service", "survive")
    assert not tasks.running(local.plan, "survive")


def test_without_a_control_plane_containers_still_restart(local: LocalCluster) -> None:
    """The first tier of recovery is the agent's alone."""
    task = local.apply_hello("alone", replicas=1)[0]
    pid = local.container_pid(task.meta.name)
    control_plane = local.process("cp1")
    control_plane.signal(signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: local.container_pid(task.meta.name) != pid, what="another process")
        assert task.meta.name in get(task.status.address)
    finally:
        control_plane.signal(signal.SIGCONT)
    until(lambda: _answers(local), what="the control plane answers again", timeout_s=20)
    local.orchctl("delete", "service", "alone")

"""An agent that ends in order says that it comes back: its tasks stay where they are, and nobody notices.

The machine's process 1, which would start another agent at once, is frozen meanwhile.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import options
from controlplane.core import nodes
from deploy.local import processes, tasks
from tests.support import pages, webclients, webimage
from tests.support.cluster import LocalCluster, names_of
from tests.support.waiting import until
from tests.support.webclients import Clients
from tests.support.webserver import PORT

pytestmark = pytest.mark.root

PUBLISHED = 18091
REPLICAS = 6
BACK_WITHIN_S = options.parse(["--name=n", "--server=unix:/s", "--address=10.0.0.1", "--state=/s"]).back_within
BUSY_S = 15.0
"""What a machine that runs other tests meanwhile may add."""
MANIFEST = f"""\
kind: Service
meta: {{name: web}}
spec:
  replicas: {REPLICAS}
  onNodeLoss: {{replaceAfter: 3s}}
  template:
    stopGracePeriod: 2s
    container:
      image: web
      ports: [{{name: http, target: {PORT}, published: {PUBLISHED}, mode: ingress}}]
      probes:
        readiness: {{http: {{port: http, path: /ready}}, interval: 500ms}}
"""


@pytest.fixture(scope="module")
def clients(local: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    image = tmp_path_factory.mktemp("web") / "web.tar"
    webimage.write(image)
    local.orchctl("image", "push", "--archive", str(image), "--name", "web", "--cmd", webimage.SERVER)
    local.orchctl("apply", "-f", "-", "--timeout", "60s", text=MANIFEST)
    local.await_whole("web", REPLICAS, timeout_s=40)
    virtual = f"{local.service('web').status.address}:{PORT}"
    with webclients.load(local, virtual=virtual, published=PUBLISHED) as under_load:
        until(lambda: len(under_load.outside.standing.get("by_task", ())) == REPLICAS, what="all replicas answer")
        assert under_load.failures() == []
        yield under_load
    local.orchctl("delete", "service", "web")


@contextlib.contextmanager
def away(local: LocalCluster, node: str) -> Iterator[None]:
    """Its agent is told to end, and no other is started while the block runs."""
    agent, (init,) = local.agent_pid(node), processes.children(local.process(node).pid)
    os.kill(init, signal.SIGSTOP)
    try:
        os.kill(agent, signal.SIGTERM)
        until(lambda: _has_ended(agent), what="the agent has ended", timeout_s=20)
        yield
    finally:
        os.kill(init, signal.SIGCONT)
    until(lambda: local.nodes()[node].state == "ready", what=f"{node} is back", timeout_s=30)


def _has_ended(pid: int) -> bool:
    """It is a zombie for as long as process 1 is frozen: state Z in proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def another(local: LocalCluster) -> tuple[str, str]:
    """The name and id of a node that the clients are not on, which have to be heard meanwhile."""
    (home,) = {task.node_id for task in tasks.running(local.plan, "clients")}
    return next((name, node.id) for name, node in local.nodes().items() if node.id != home)


def _is_told(local: LocalCluster, restarting: str) -> bool:
    """By a list of nodes like that of the page, on which it is n2."""
    (shown,) = (one.seen for one in pages.transcript("nodes.md") if one.command == "orchctl get nodes")
    (row,) = (line.replace("n2", restarting) for line in shown.splitlines() if line.startswith("n2"))
    return any(pages.is_seen(row, line) for line in local.orchctl("get", "nodes").splitlines())


def test_an_agent_that_is_back_in_time_has_lost_nothing(clients: Clients) -> None:
    """It is away for longer than a node is that is lost, and than its services wait for one."""
    local = clients.local
    name, node_id = another(local)
    before = {task.meta.name: local.container_pid(task.meta.name) for task in local.await_whole("web", REPLICAS)}
    began = time.monotonic()
    with away(local, name):
        until(lambda: _is_told(local, name), what="it is told as docs/nodes.md shows it")
        long_s = nodes.DOWN_AFTER_MS / 1000 + 5
        until(lambda: time.monotonic() - began > long_s, what="it is away for long", timeout_s=long_s + 5)
        assert "within 30s)" in local.orchctl("describe", "node", name)
        on_node = [task for task in tasks.running(local.plan, "web") if task.node_id == node_id]
        assert on_node, "no task of it is there to be replaced"
        assert {task.meta.name for task in tasks.running(local.plan, "web")} == set(before)
    after = {task.meta.name: local.container_pid(task.meta.name) for task in local.await_whole("web", REPLICAS)}
    assert after == before
    assert all(local.task(name).status.restarts == 0 for name in before)
    assert clients.failures() == []


def test_the_tasks_of_an_agent_that_is_late_are_replaced(clients: Clients) -> None:
    """When its time is over, and not before. They answer until others do."""
    local = clients.local
    name, lost = another(local)
    before = names_of(local.await_whole("web", REPLICAS))
    began = time.monotonic()
    with away(local, name):
        replaced = local.await_whole("web", REPLICAS, but_not_on=lost, timeout_s=BACK_WITHIN_S + BUSY_S)
        assert time.monotonic() - began >= BACK_WITHIN_S
        assert set(names_of(replaced)) != set(before)
        assert local.nodes()[name].state == "down"
    assert clients.failures() == []

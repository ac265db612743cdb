"""Clusters of both families and of IPv6 alone, by plain routes and by the tunnel: what IPv4 promises holds for IPv6.

The machines of a cluster of both families reach each other by IPv4, those of one of IPv6 alone by IPv6.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent import early
from protos.families import bracketed
from protos.orch.v1.objects_pb2 import Task
from tests.support import cluster, webclients, webimage
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

PUBLISHED = 18091
REPLICAS = 6
FEWER = 2
SERVICES = """\
kind: Service
meta: {name: web}
spec:
  replicas: 3
  template:
    stopGracePeriod: 1s
    container:
      image: hello
      ports: [{name: http, target: 8080, published: 18090}]
      probes:
        readiness: {http: {port: http, path: /}}
---
kind: Network
meta: {name: vault}
spec: {internal: true}
---
kind: Service
meta: {name: safe}
spec:
  networks: [vault]
  template:
    stopGracePeriod: 1s
    container: {image: hello, ports: [{name: http, target: 8080}]}
---
kind: Service
meta: {name: box}
spec:
  replicas: 3
  template:
    stopGracePeriod: 1s
    container: {image: busybox, command: [sleep, "3600"]}
"""
LOADED = """\
kind: Service
meta: {{name: loaded}}
spec:
  replicas: {replicas}
  template:
    drainSeconds: 0
    stopGracePeriod: 5s
    container:
      image: web
      ports: [{{name: http, target: 8080, published: 18091}}]
      probes:
        readiness: {{http: {{port: http, path: /ready}}, interval: 500ms}}
"""


@pytest.fixture(
    scope="module",
    params=[("dual", "routes"), ("dual", "vxlan"), ("ipv6", "routes"), ("ipv6", "vxlan")],
    ids="-".join,
)
def up(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Three nodes with the services above, a `box` on each of them."""
    addresses, mode = request.param
    with cluster.running(network_mode=mode, addresses=addresses) as running:
        running.orchctl("apply", "-f", "-", "--timeout", "60s", text=SERVICES)
        for name, replicas in (("web", 3), ("safe", 1), ("box", 3)):
            running.await_whole(name, replicas, timeout_s=30)
        yield running


def within(up: LocalCluster, box: Task, *command: str, code: int = 0) -> str:
    """What a command in a box says."""
    return up.orchctl("exec", box.meta.name, "--", "/bin/busybox", *command, code=code)


def looked_up(up: LocalCluster, kind: str, name: str) -> set[str]:
    """The addresses that a box finds."""
    said = within(up, up.tasks("box")[0], "nslookup", f"-type={kind}", name)
    return {line.split()[1] for line in said.splitlines() if line.startswith("Address: ")}


def alone(up: LocalCluster) -> bool:
    """Whether there is no IPv4."""
    return up.plan.addresses == "ipv6"


def machines(up: LocalCluster) -> list[str]:
    """The IPv6 addresses of the nodes."""
    return [up.plan.node_address6(name) for name in up.plan.node_names]


def test_names_lead_to_addresses_of_the_families_that_there_are(up: LocalCluster) -> None:
    """And to none of the other; an address leads back to the name. A task knows its own by its name."""
    service, web, box = up.service("web"), up.tasks("web"), up.tasks("box")[0]
    assert looked_up(up, "aaaa", "web.default.orch") == {service.status.address6}
    assert looked_up(up, "a", "web.default.orch") == (set() if alone(up) else {service.status.address})
    assert looked_up(up, "aaaa", "tasks.web.default.orch") == {task.status.address6 for task in web}
    assert f"web-{web[0].slot}.web.default.orch" in within(up, box, "nslookup", web[0].status.address6)
    own = {line.split()[0] for line in within(up, box, "cat", "/etc/hosts").splitlines() if box.meta.name in line}
    assert own == {box.status.address6} | (set() if alone(up) else {box.status.address})
    assert service.status.address6 in up.orchctl("get", "endpoints")


def test_every_task_reaches_every_other_and_the_service(up: LocalCluster) -> None:
    """On its own node and on others, by their addresses and by the virtual one; and the check finds nothing broken."""
    web, virtual = up.tasks("web"), up.service("web").status.address6
    assert len({task.node_id for task in web}) == 3
    for box in up.tasks("box"):
        for task in web:
            url = f"http://{bracketed(task.status.address6)}:8080/"
            assert f"task={task.meta.name} " in within(up, box, "wget", "-q", "-O", "-", url)
        said = [within(up, box, "wget", "-q", "-O", "-", f"http://{bracketed(virtual)}:8080/") for _ in range(3)]
        assert all("task=web-" in each for each in said)
    checked = up.orchctl("network", "check")
    taken_by_tunnel = {"routes": 0, "vxlan": 70 if alone(up) else 50}[up.plan.network_mode]
    assert checked.count(f"packets of {1500 - taken_by_tunnel} bytes") == (6 if alone(up) else 12)


def test_a_published_port_is_at_every_node(up: LocalCluster) -> None:
    """From outside, by every node's IPv6 address, and by IPv4 where there is any."""
    addresses = [*machines(up), *([] if alone(up) else [up.plan.node_address(name) for name in up.plan.node_names])]
    for address in addresses:
        assert "task=web-" in cluster.get(address, port=18090)


def test_another_segment_is_refused(up: LocalCluster) -> None:
    """In words."""
    (safe,) = up.tasks("safe")
    url = f"http://{bracketed(safe.status.address6)}:8080/"
    for box in up.tasks("box"):
        process = up.start_orchctl("exec", box.meta.name, "--", "/bin/busybox", "wget", "-O", "-", url)
        said, _ = process.communicate(timeout=20)
        assert process.returncode != 0
        assert "Permission denied" in said, said


def test_no_request_is_lost_when_tasks_leave(up: LocalCluster, tmp_path: Path) -> None:
    """From a task to the virtual address, and from outside to every node."""
    webimage.write(tmp_path / "web.tar")
    up.orchctl("image", "push", "--archive", str(tmp_path / "web.tar"), "--name", "web", "--cmd", webimage.SERVER)
    up.orchctl("apply", "-f", "-", "--timeout", "60s", text=LOADED.format(replicas=REPLICAS))
    up.await_whole("loaded", REPLICAS, timeout_s=40)
    virtual = f"{bracketed(up.service('loaded').status.address6)}:8080"
    with webclients.load(up, virtual=virtual, published=PUBLISHED, addresses=machines(up)) as clients:
        until(lambda: len(clients.outside.standing.get("by_task", ())) == REPLICAS, what="all replicas answer")
        up.scale("loaded", FEWER)
        until(lambda: len(up.tasks("loaded")) == FEWER, what="the others have gone", timeout_s=20)
        assert clients.failures() == []
        assert all(count > 50 for count in clients.answered().values()), clients.answered()
    up.orchctl("delete", "service", "loaded")


def test_an_agent_that_is_started_again_keeps_its_tasks(up: LocalCluster) -> None:
    """With their addresses, which nobody else gets; and it goes on giving others."""
    before = {task.meta.id: (task.status.address6, task.status.started_at) for task in up.tasks("web")}
    node = up.nodes()["n1"]
    gateways = [str(ip_network(subnet)[1]) for subnet in (node.subnet, node.subnet6) if subnet]
    assert (up.plan.node_folder("n1") / early.NOTE).read_text().split() == gateways, "names are asked for there again"
    agent = up.agent_pid("n1")
    os.kill(agent, signal.SIGKILL)
    until(lambda: up.agent_pid("n1") != agent, what="the agent is started again")
    up.scale("web", 6)
    after = up.await_whole("web", 6, timeout_s=30)
    found = {task.meta.id: (task.status.address6, task.status.started_at) for task in after}
    assert before.items() <= found.items()
    assert len({address for address, _ in found.values()}) == 6
    up.scale("web", 3)
    until(lambda: len(up.tasks("web")) == 3, what="the others have gone", timeout_s=20)


def test_nothing_of_ipv4_is_there_that_was_not_asked_for(up: LocalCluster) -> None:
    """In a cluster of IPv6 alone, tasks have no address of IPv4 and no way there."""
    agent = up.agent_pid("n1")
    said = subprocess.run(
        ["nsenter", f"--net=/proc/{agent}/ns/net", "ip", "-4", "route"], capture_output=True, text=True, check=True
    ).stdout
    assert ("proto 112" in said) == (not alone(up))
    assert {bool(task.status.address) for task in up.tasks("box")} == {not alone(up)}

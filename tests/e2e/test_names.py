"""Names on a whole cluster: from the manifest through the leader to a container on another node, by orchctl exec."""

from collections.abc import Iterator

import pytest

from tests.support import cluster
from tests.support.cluster import LocalCluster
from tests.support.waiting import until

pytestmark = pytest.mark.root

MANIFESTS = """\
kind: Service
meta: {name: web}
spec:
  replicas: 3
  template:
    stopGracePeriod: 1s
    container: {image: hello, ports: [{name: http, target: 8080}]}
---
kind: Service
meta: {name: db}
spec:
  replicas: 2
  endpointMode: dns
  template:
    stopGracePeriod: 1s
    container: {image: hello, ports: [{name: http, target: 8080}]}
---
kind: Service
meta: {name: box}
spec:
  template:
    stopGracePeriod: 1s
    container: {image: busybox, command: [sleep, "3600"]}
"""


@pytest.fixture(scope="module")
def up() -> Iterator[LocalCluster]:
    with cluster.running(nodes=2) as running:
        running.orchctl("apply", "-f", "-", text=MANIFESTS)
        for name, replicas in (("web", 3), ("db", 2), ("box", 1)):
            running.await_whole(name, replicas)
        yield running


def looked_up(up: LocalCluster, name: str) -> set[str]:
    """The addresses that busybox finds in the box."""
    (box,) = up.tasks("box")
    said = up.orchctl("exec", box.meta.name, "--", "/bin/busybox", "nslookup", "-type=a", name)
    return {line.split()[1] for line in said.splitlines() if line.startswith("Address: ")}


def test_services_are_found_by_name(up: LocalCluster) -> None:
    """A virtual address, the tasks behind it, one of them; and a service without one is its tasks."""
    (virtual,) = until(lambda: looked_up(up, "web.default.orch"), what="web has a name")
    web, db = up.tasks("web"), up.tasks("db")
    addresses = {task.status.address for task in web}
    assert virtual not in addresses
    until(lambda: looked_up(up, "tasks.web.default.orch") == addresses, what="all tasks are found")
    for task in web:
        assert looked_up(up, f"web-{task.slot}.web.default.orch") == {task.status.address}
    assert looked_up(up, "db.default.orch") == {task.status.address for task in db}


def test_a_service_answers_by_its_name(up: LocalCluster) -> None:
    """From a task on any node, by its short name."""
    (box,) = up.tasks("box")
    for name in ("web", "web.default", "db-2.db"):
        said = up.orchctl("exec", box.meta.name, "--", "/bin/busybox", "wget", "-qO-", f"http://{name}:8080/")
        assert said.startswith("task="), said


def test_tasks_that_go_are_not_found(up: LocalCluster) -> None:
    """Nor those that come are missed."""
    up.orchctl("scale", "db", "1")
    until(lambda: len(looked_up(up, "db.default.orch")) == 1, what="one task is left")
    up.orchctl("scale", "db", "3")
    up.await_whole("db", 3)
    addresses = {task.status.address for task in up.tasks("db") if task.status.address}
    until(lambda: looked_up(up, "db.default.orch") == addresses, what="all three are found")

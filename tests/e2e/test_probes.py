"""Readiness, rollouts and draining, as a person sees them, and as clients do."""

import contextlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support.cluster import LocalCluster, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

PUBLISHED = 18088
MANIFEST = """\
kind: Service
meta: {{name: probed}}
spec:
  replicas: 2
  template:
    drainSeconds: 1
    stopGracePeriod: 2s
    container:
      image: hello
      env: {{VERSION: "{version}"}}
      ports: [{{name: http, target: 8080, published: 18088, mode: ingress}}]
      probes:
        startup: {{tcp: {{port: http}}, interval: 200ms, failureThreshold: 100}}
        readiness: {{http: {{port: http, path: {path}}}, interval: 200ms}}
"""


def apply(local: LocalCluster, version: int) -> list[pb.Task]:
    local.orchctl("apply", "-f", "-", text=MANIFEST.format(version=version, path="/"))
    return local.await_whole("probed", 2)


def running(local: LocalCluster) -> list[pb.Task]:
    return [task for task in local.tasks("probed") if not states.is_terminal(task.status.state)]


def asked_from(local: LocalCluster, task: pb.Task, other: pb.Task) -> str:
    """What a task answers to another one."""
    url = f"http://{task.status.address}:8080/"
    return local.orchctl("exec", other.meta.name, "--", "wget", "-qO-", url)


@dataclass(slots=True)
class Load:
    """Clients outside the cluster, each with a new connection for every request."""

    answers: Counter[str] = field(default_factory=Counter)  # by task
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, address: str) -> None:
        """Again and again until it is over."""
        while not self.over.wait(0.005):
            connection = http.client.HTTPConnection(address, PUBLISHED, timeout=10)
            try:
                connection.request("GET", "/")
                body = connection.getresponse().read().decode()
                self.answers[body.split()[0].removeprefix("task=")] += 1
            except (OSError, http.client.HTTPException, IndexError) as error:
                self.failures.append(f"{address} at {time.time():.3f}: {error!r}")
            finally:
                connection.close()


@contextlib.contextmanager
def load(local: LocalCluster) -> Iterator[Load]:
    """On every node while the block runs."""
    one = Load()
    clients = [threading.Thread(target=one.ask, args=(node.address,)) for node in local.nodes().values()]
    for client in clients:
        client.start()
    try:
        yield one
    finally:
        one.over.set()
        for client in clients:
            client.join()


def test_no_request_is_lost(local: LocalCluster) -> None:
    """Two rollouts, a scale-up and a scale-down under load, through every node: each request is answered."""
    first = apply(local, 1)
    with load(local) as clients:
        until(lambda: len(clients.answers) == 2, what="both replicas answer", timeout_s=10)
        second = apply(local, 2)
        third = apply(local, 3)
        local.orchctl("scale", "probed=5")
        local.orchctl("scale", "probed=2")
        until(lambda: len(running(local)) == 2, what="the others have ended", timeout_s=20)
    assert not clients.failures, "\n".join(clients.failures[:5])
    assert {*names_of(first), *names_of(second), *names_of(third)} <= set(clients.answers)
    assert sum(clients.answers.values()) > 500


def test_a_rollout_stops_at_a_version_that_is_never_ready(local: LocalCluster) -> None:
    """No replica is lost to it, since the new ones come first; it says why, and the next version mends everything."""
    first = apply(local, 4)
    broken = MANIFEST.format(version=5, path="/nothing")
    with load(local) as clients:
        local.orchctl("apply", "-f", "-", "--timeout", "8s", text=broken, code=1)
    assert not clients.failures, "\n".join(clients.failures[:5])
    kept, second = [task for task in running(local) if task.meta.name in names_of(first)]
    (new,) = [task for task in running(local) if task.meta.name not in names_of(first)]
    assert kept.status.ready
    assert second.status.ready
    assert (new.status.ready, new.status.state) == (False, states.RUNNING)
    assert kept.meta.name in asked_from(local, kept, new)
    why = "readiness probe failed: HTTP GET /nothing on port http: status 404"
    assert why in local.orchctl("describe", "task", new.meta.name)
    page = local.orchctl("describe", "service", "probed")
    assert why in page
    assert "Readiness:      HTTP GET /nothing on port http, every 200ms within 1s, until 3 bad answers" in page
    assert all(task.status.ready for task in apply(local, 6))


def test_a_task_drains_before_it_ends(local: LocalCluster) -> None:
    """It answers after it was told to stop, and not any more once its time is over."""
    other, task = apply(local, 6)
    told_at = time.monotonic()
    local.orchctl("scale", "probed=1", "--detach")
    until(lambda: local.task(task.meta.name).status.message == "draining connections", what="it drains", timeout_s=5)
    assert task.meta.name in asked_from(local, task, other)
    assert not local.task(task.meta.name).status.ready
    until(lambda: task.meta.name not in names_of(running(local)), what="it has ended", timeout_s=20)
    assert time.monotonic() - told_at >= 1
    local.orchctl("delete", "service", "probed")

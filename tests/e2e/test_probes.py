"""Readiness, rollouts and draining, as a person sees them."""

import time

import pytest

from protos import states
from protos.orch.v1 import objects_pb2 as pb
from tests.support.cluster import LocalCluster, get, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

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
      ports: [{{name: http, target: 8080}}]
      probes:
        startup: {{tcp: {{port: http}}, interval: 200ms, failureThreshold: 100}}
        readiness: {{http: {{port: http, path: {path}}}, interval: 200ms}}
"""


def running(local: LocalCluster) -> list[pb.Task]:
    return [task for task in local.tasks("probed") if not states.is_terminal(task.status.state)]


def test_a_rollout_stops_at_a_version_that_is_never_ready(local: LocalCluster) -> None:
    """One replica is lost to it and says why; the other one serves on, and the next version mends everything."""
    local.orchctl("apply", "-f", "-", text=MANIFEST.format(version=1, path="/"))
    first = local.await_whole("probed", 2)
    assert all(task.status.ready for task in first)
    local.orchctl("apply", "-f", "-", "--timeout", "12s", text=MANIFEST.format(version=2, path="/nothing"), code=1)
    (kept,) = [task for task in running(local) if task.meta.name in names_of(first)]
    (new,) = [task for task in running(local) if task.meta.name not in names_of(first)]
    assert (kept.status.ready, new.status.ready, new.status.state) == (True, False, states.RUNNING)
    assert kept.meta.name in get(kept.status.address)
    why = "readiness probe failed: HTTP GET /nothing on port http: status 404"
    assert why in local.orchctl("describe", "task", new.meta.name)
    page = local.orchctl("describe", "service", "probed")
    assert why in page
    assert "Readiness:      HTTP GET /nothing on port http, every 200ms within 1s, until 3 bad answers" in page
    local.orchctl("apply", "-f", "-", text=MANIFEST.format(version=3, path="/"))
    second = local.await_whole("probed", 2)
    assert all(task.status.ready for task in second)


def test_a_task_drains_before_it_ends(local: LocalCluster) -> None:
    """It answers after it was told to stop, and not any more once its time is over."""
    local.orchctl("apply", "-f", "-", text=MANIFEST.format(version=3, path="/"))
    task = local.await_whole("probed", 2)[1]
    local.orchctl("scale", "probed=1", "--detach")
    told_at = time.monotonic()
    until(
        lambda: local.task(task.meta.name).status.message == "draining connections",
        what="it drains",
        timeout_s=5,
    )
    assert task.meta.name in get(task.status.address)
    assert not local.task(task.meta.name).status.ready
    until(lambda: task.meta.name not in {one.meta.name for one in running(local)}, what="it has ended", timeout_s=20)
    assert time.monotonic() - told_at >= 1
    local.orchctl("delete", "service", "probed")

"""A cluster is restored from a backup while its containers run: none of them notices."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import cluster as local_cluster
from deploy.local import network, tasks
from orchctl import errors
from protos.orch.v1 import objects_pb2
from tests.support import cluster
from tests.support.cluster import COMMAND_TIMEOUT_S, ORCHCTL, ROOT, LocalCluster, get, names_of
from tests.support.waiting import until

pytestmark = pytest.mark.root

READY_S = 60.0


@pytest.fixture(params=[1, 3])
def up(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """With one control plane, and with three."""
    with cluster.running(nodes=2, control_planes=request.param) as made:
        yield made


def test_a_restored_cluster_keeps_its_running_containers(up: LocalCluster, tmp_path: Path) -> None:
    """All control planes are lost with their disks. The last of them is made anew from the backup, at its own address,
    which agents know beside that of the first; what happened after the backup is undone.
    """
    replicas = up.apply_hello("kept", replicas=4)
    pids = {name: up.container_pid(name) for name in names_of(replicas)}
    path = tmp_path / "home.backup"
    said = _at(up, "cp1", "cluster", "backup", f"--trust={up.plan.trust('cp1')}", f"--out={path}")
    assert "whoever has it is master of the cluster" in said
    late = names_of(up.apply_hello("late", replicas=1))[0]
    late_pid = up.container_pid(late)

    for name in up.plan.instance_names:
        local_cluster.kill_node(up.folder, name)
        for folder in (up.folder / name, up.folder / up.plan.etcd_of(name)):
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
    last = up.plan.instance_names[-1]
    address = up.plan.instance_address(last)
    where = ("--host=127.0.0.1",) if up.plan.control_planes == 1 else ()
    said = up.orchctl(
        *("cluster", "restore", str(path), f"--name={last}", f"--trust={up.plan.trust(last)}", *where),
        *("--server", f"{address}:7400", "--context=restored"),
    )
    assert "is restored as of revision" in said
    local_cluster.start_node(up.folder, last)

    until(lambda: _ready(up), what="all agents are back", timeout_s=READY_S)
    again = until(lambda: _whole(up), what="the service is whole", timeout_s=READY_S)
    assert {name: up.container_pid(name) for name in names_of(again)} == pids
    assert not any(task.status.restarts for task in again)
    assert all(get(task.status.address) for task in again)
    until(lambda: not Path(f"/proc/{late_pid}").exists(), what="what came after the backup stops", timeout_s=READY_S)
    up.orchctl("scale", "kept=5")
    assert set(pids) < set(names_of(up.await_whole("kept", 5)))


def _at(up: LocalCluster, instance: str, *arguments: str) -> str:
    """What a command says on the machine of a control plane."""
    place = Path(f"/proc/{up.process(instance).pid}/ns/net")
    with place.open() as there, network.inside(there.fileno()):
        done = subprocess.run(
            [ORCHCTL, *arguments],
            env={**os.environ, "ORCH_CONFIG": up.plan.config}, cwd=ROOT, capture_output=True, text=True,
            timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _ready(up: LocalCluster) -> bool:
    """By the context that the restoration has made."""
    done = up.run("get", "nodes")
    return done.returncode == 0 and done.stdout.count("READY") == up.plan.nodes


def _whole(up: LocalCluster) -> list[objects_pb2.Task] | None:
    with contextlib.suppress(errors.OrchctlError):
        return tasks.whole(up.plan, "kept", 4)
    return None

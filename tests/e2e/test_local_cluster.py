"""`orchctl cluster`: up, status, down; and nothing left, however it ends."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo import leftovers
from deploy.local import claims, cluster, network, plan, record
from tests.support import cluster as support
from tests.support.waiting import until

pytestmark = pytest.mark.root

UP_S = 5.0
BUSY_S = 10.0


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder for a cluster that the test starts by itself."""
    with support.folder() as path:
        yield path / "state"
        cluster.down(path / "state")


def name_of(state: Path) -> str:
    """Other tests may run on this machine, even these."""
    return f"c{state.parent.name[-6:].lower().replace('_', '0')}"


def run(state: Path, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "deploy.local", *arguments, "--name", name_of(state), "--state", str(state)]
    environment = support.environment(str(state.parent / "config.yaml"))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == code, f"exit code {result.returncode}, not {code}:\n{result.stdout}{result.stderr}"
    return result.stdout + result.stderr


def test_up_status_down(state: Path) -> None:
    """Up within seconds, said again in status, and gone without a trace; twice is once."""
    before = leftovers.look()
    began = time.monotonic()
    said = run(state, "up", "--nodes", "3")
    assert f"take it down with: orchctl cluster down --name {name_of(state)} --state {state}" in said
    assert time.monotonic() - began < UP_S + BUSY_S
    assert "is up already" in run(state, "up", "--nodes", "3", code=1)
    assert run(state, "status").count("running, ready") == 3
    the_record = cluster.existing(state)
    its_namespaces = leftovers.namespaces(the_record.plan)
    assert "is down" in run(state, "down")
    assert leftovers.find(the_record.plan, before, its_namespaces) == []
    assert "no cluster" in run(state, "down")
    assert not state.exists()
    assert not (state.parent / "config.yaml").exists()


def test_an_up_that_is_interrupted_leaves_nothing(state: Path) -> None:
    """Ctrl-C while the machines boot."""
    command = [sys.executable, "-m", "deploy.local", "up", "--name", name_of(state), "--state", str(state)]
    environment = support.environment(str(state.parent / "config.yaml"))
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        until(lambda: network.exists(plan.host_link(name_of(state))), what="the supervisor has begun")
        up.send_signal(signal.SIGINT)
        output, _ = up.communicate(timeout=60)
    assert up.returncode == 130, output
    assert "Traceback" not in output
    assert not state.exists()
    assert not network.exists(plan.host_link(name_of(state)))


def test_two_clusters_keep_out_of_each_others_way(state: Path) -> None:
    """The second chooses other addresses, and its end leaves the first alone."""
    run(state, "up", "--nodes", "1")
    with support.running(nodes=1) as other:
        first = cluster.existing(state)
        assert other.plan.lan.network != first.plan.lan.network
        assert other.apply_hello("here", replicas=1)
    assert run(state, "status").count("running, ready") == 1


def test_a_name_is_one_clusters_alone(state: Path) -> None:
    """Links and control groups are called after it: a namesake would sweep them away."""
    run(state, "up", "--nodes", "1")
    with support.folder() as elsewhere:
        command = [sys.executable, "-m", "deploy.local", "up", "--name", name_of(state), "--state", str(elsewhere)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 1
        assert "another cluster called" in result.stderr
    assert run(state, "status").count("running, ready") == 1


def test_a_supervisor_killed_takes_everything_along(state: Path) -> None:
    """`kill -9` is a way to end a cluster, too; only the folder stays, for its logs, until the next `up`."""
    before = leftovers.look()
    run(state, "up", "--nodes", "2")
    the_record = cluster.existing(state)
    its_namespaces = leftovers.namespaces(the_record.plan)
    supervisor = the_record.processes["supervisor"]
    assert supervisor is not None
    supervisor.signal(signal.SIGKILL)
    until(lambda: not record.is_locked(state), what="the sweeper is done", timeout_s=20)
    assert leftovers.find(the_record.plan, before, its_namespaces) == []
    assert (state / "supervisor.log").exists()
    run(state, "up", "--nodes", "1")
    assert run(state, "status").count("running, ready") == 1


def test_a_cluster_ends_with_its_owner(state: Path) -> None:
    """Even when that was killed."""
    owner = subprocess.Popen(["sleep", "1000"])
    run(state, "up", "--nodes", "1", "--owner-pid", str(owner.pid))
    owner.kill()
    owner.wait()
    until(lambda: not state.exists(), what="the cluster is gone", timeout_s=20)
    assert not network.exists(plan.host_link(name_of(state)))


def test_a_machine_is_switched_off_and_on(state: Path) -> None:
    """Once each; what makes no sense is refused, and nothing changes."""
    run(state, "up", "--nodes", "1")
    run(state, "node", "kill", "n1")
    assert "n1 is off" in run(state, "node", "kill", "n1", code=1)
    assert "no machine is called n7: there are cp1, n1" in run(state, "node", "kill", "n7", code=1)
    run(state, "node", "start", "n1")
    assert "n1 is running" in run(state, "node", "start", "n1", code=1)
    assert run(state, "status").count("running, ready") == 1


def test_an_owner_that_is_gone_is_refused(state: Path) -> None:
    """Before anything is started."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert "there is no such process" in run(state, "up", "--owner-pid", str(gone.pid), code=1)
    assert not state.exists()


def test_only_root_may(state: Path) -> None:
    """Said at once, with what to do."""
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "deploy.local", "up"]
    result = subprocess.run(
        [*command, "--state", str(state)], cwd=support.ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 1
    assert "needs root" in result.stderr
    assert "Traceback" not in result.stderr


def test_addresses_of_the_host_are_respected(state: Path) -> None:
    """A LAN that the host already has is not hidden by the cluster's."""
    with claims.a_lan(network.taken(), "a test") as lan:  # one that is in use would be taken from its cluster
        free = lan.network
        address = free.replace(".0/", ".77/")
        subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
    try:
        run(state, "up", "--nodes", "1")
        assert cluster.existing(state).plan.lan.network != free
    finally:
        subprocess.run(["ip", "address", "delete", address, "dev", "lo"], check=True)


def test_a_full_disk_takes_nothing_down(state: Path) -> None:
    """etcd ends, as it does on a full disk; the machines run on, and etcd returns when there is room again."""
    state.parent.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "full-disk", state.parent], check=True)
    try:
        run(state, "up", "--nodes", "1")
        filling = state.parent / "filling"
        with pytest.raises(OSError, match="No space left"):
            filling.write_bytes(bytes(200 << 20))
        etcd = cluster.existing(state).processes["etcd"]
        assert etcd is not None
        etcd.signal(signal.SIGKILL)
        assert etcd.wait(BUSY_S)
        assert run(state, "status").count("running, ready") == 1
        filling.unlink()
        until(lambda: cluster.existing(state).processes["etcd"] not in {None, etcd}, what="etcd is back", timeout_s=30)
    finally:
        cluster.down(state)
        subprocess.run(["umount", "--lazy", state.parent], check=True)


def test_clusters_of_two_checkouts_that_start_at_once_share_nothing(state: Path, tmp_path: Path) -> None:
    """Neither sees a link of the other when it chooses its addresses."""
    elsewhere = tmp_path / "checkout"
    for package in ("agent", "controlplane", "deploy", "images", "manifests", "orchctl", "protos", "runtime", "trust"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(support.ROOT / package, elsewhere / package, ignore=ignored)
    with support.folder() as other:
        folders = {support.ROOT: state, elsewhere: other / "state"}
        ups = [start_up(checkout, folder) for checkout, folder in folders.items()]
        try:
            told = [up.communicate(timeout=90)[0] for up in ups]
            assert [up.returncode for up in ups] == [0, 0], told
            plans = [cluster.existing(folder).plan for folder in folders.values()]
            assert len({one.lan.network for one in plans}) == len({one.host_link for one in plans}) == len(plans)
            assert all(run(folder, "status").count("running, ready") == 1 for folder in folders.values())
        finally:
            cluster.down(other / "state")


def start_up(checkout: Path, state: Path) -> subprocess.Popen[str]:
    """`cluster up` with a checkout's own code."""
    command = [sys.executable, "-m", "deploy.local", "up", "--nodes", "1"]
    environment = {**support.environment(str(state.parent / "config.yaml")), "PYTHONPATH": str(checkout)}
    return subprocess.Popen(
        [*command, "--name", name_of(state), "--state", str(state)],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

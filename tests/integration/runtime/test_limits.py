"""What limits do to the processes in a container, and what is measured of them, on either version of cgroups."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import cgroups, client, errors
from runtime.resources import Resources
from tests.integration.runtime.conftest import PARENT, Box, wait_gone, wait_until
from tests.support import groups

pytestmark = pytest.mark.root

MB = 1 << 20


def test_measured_is_what_the_workload_used(box: Box) -> None:
    """CPU time as the process itself counts it, memory that it holds, and no more than its limit."""
    script = (
        "dd if=/dev/zero of=/dev/shm/file bs=1M count=24 2>/dev/null; n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done;"
        "cat /proc/self/stat /proc/1/stat; echo done; sleep 1000"
    )
    config = box.config("a", "sh", "-c", script)
    config["linux"]["resources"]["memory"] = {"limit": 256 * MB, "swap": 256 * MB}
    box.create("a", config)
    wait_until(lambda: "done" in box.log_path("a").read_text(), "the work is done", 60)
    stats = client.cgroup(box.root, "a").stats()
    shell = box.output("a").splitlines()[1].rsplit(")", 1)[1].split()
    ticks = sum(int(shell[field]) for field in (11, 12, 13, 14))  # own and ended children's, user and system: proc(5)
    used_s, counted_s = stats.cpu_usage_ns / 1e9, ticks / os.sysconf("SC_CLK_TCK")
    assert abs(used_s - counted_s) < 0.1 + 0.3 * counted_s, (used_s, counted_s)
    assert 24 * MB <= stats.memory_bytes < 64 * MB
    assert stats.memory_peak_bytes is None or stats.memory_peak_bytes >= 24 * MB
    assert stats.memory_limit_bytes == 256 * MB
    assert stats.oom_kills == 0


def test_pids_limit_holds(box: Box) -> None:
    """With room for four processes the fourth child cannot be made; the container goes on."""
    config = box.config("a", "sh", "-c", "for n in 1 2 3 4 5 6; do sleep 1000 & done; sleep 1000")
    config["linux"]["resources"]["pids"] = {"limit": 4}
    box.create("a", config)
    assert box.ended("a").exit_code == 2  # the shell gives up: can't fork
    assert "fork" in box.output("a")


def test_processor_quota_holds(box: Box) -> None:
    """A tenth of a processor: the kernel has held it back, and it used no more than that."""
    config = box.config("a", "sh", "-c", "while :; do :; done")
    config["linux"]["resources"]["cpu"] = {"quota": 10_000, "period": 100_000}
    box.create("a", config)
    file = groups.folder("cpu", f"{box.parent}/a") / "cpu.stat"

    def counts() -> dict[str, int]:
        return {name: int(value) for name, value in map(str.split, file.read_text().splitlines())}

    wait_until(lambda: counts()["nr_throttled"] >= 5, "it is held back five times", 60)
    group = client.cgroup(box.root, "a")
    periods, used = counts()["nr_periods"], group.stats().cpu_usage_ns
    assert used < (periods + 2) * 10_000_000 * 2, "twice the quota, since a period's end is a tick late"


def test_kill_of_one_process_for_memory_is_counted(box: Box) -> None:
    """When the kernel takes a child, the container's own exit code counts, and the kill is in its exit."""
    config = box.config("a", "sh", "-c", "tail /dev/zero; echo went on; exit 5")
    config["linux"]["resources"]["memory"] = {"limit": 16 * MB, "swap": 16 * MB}
    box.create("a", config)
    ended = box.ended("a")
    assert (ended.exit_code, ended.oom_killed) == (5, False)
    assert ended.oom_kills >= 1
    assert "went on" in box.output("a")


def test_frozen_container_is_killed(box: Box) -> None:
    """Force reaches a container that stands still."""
    made = box.create("a", box.config("a", "sh", "-c", "sleep 1000 & sleep 1000"))
    group = client.cgroup(box.root, "a")
    wait_until(lambda: len(group.pids()) == 2, "both processes are there")
    group.freeze()
    client.delete(box.root, "a", force=True)
    wait_gone(made["pid"])
    assert groups.below(box.parent) == []


def test_frozen_container_takes_signals_when_it_goes_on(box: Box) -> None:
    """Frozen, it is measured and takes signals, which have their effect when it is thawed."""
    box.create("a", box.config("a", "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"))
    # The kernel drops a signal that a process 1 does not handle, so not before it does.
    wait_until(lambda: box.output("a") == "ready", "the trap is set")
    group = client.cgroup(box.root, "a")
    group.freeze()
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGTERM)
        assert group.stats().pids >= 1
        assert monitor.state().status == "running"
        group.thaw()
        assert monitor.wait(20).exit_code in {3, 128 + signal.SIGTERM}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host, to put into groups."""
    with subprocess.Popen(["busybox", "sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.skipif(not groups.V2, reason="version 1 has no such rule")
def test_parent_with_processes_is_explained(box: Box, sleeper: subprocess.Popen[bytes]) -> None:
    """Version 2 gives controllers to no group whose parent has processes of its own."""
    parent = groups.folder("pids", f"{PARENT}-busy")
    parent.mkdir(parents=True)
    try:
        (parent / "cgroup.procs").write_text(str(sleeper.pid))
        config = box.config("a", "true")
        config["linux"]["cgroupsPath"] = f"{PARENT}-busy/a"
        with pytest.raises(errors.SetupFailed, match=r"cannot give .* processes are in it.*name another parent"):
            box.create("a", config)
    finally:
        sleeper.kill()
        sleeper.wait()
        cgroups.existing(groups.LAYOUT, f"{PARENT}-busy").delete()


def test_group_of_a_container_holds_what_entered_it(sleeper: subprocess.Popen[bytes]) -> None:
    """Create, limit, add, list, kill and delete, without any container, three levels deep."""
    path = f"{PARENT}-plain/deep/inner"
    limits = Resources(memory_limit_bytes=64 * MB, pids_limit=7)
    group = cgroups.Cgroup.plan(groups.LAYOUT, path, limits)
    try:
        group.create(limits)
        group.apply(limits)
        group.add(sleeper.pid)
        assert group.pids() == [sleeper.pid]
        assert path in Path(f"/proc/{sleeper.pid}/cgroup").read_text()
        assert group.stats().memory_limit_bytes == 64 * MB
        sleeper.kill()
        sleeper.wait()
        group.kill_all()
    finally:
        cgroups.existing(groups.LAYOUT, f"{PARENT}-plain").delete()
    assert group.stats().pids == 0

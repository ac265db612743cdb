"""Real groups: statistics, freezing, killing, and the device program of version 2."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from runtime import cgroups, client, devicefilter, errors, state
from runtime.resources import DeviceRule
from tests.integration.runtime.conftest import Box, wait_until
from tests.support import groups

pytestmark = pytest.mark.root


def test_statistics_freeze_and_kill(box: Box) -> None:
    """What a container uses is measured; frozen it uses nothing; thawed it goes on; killed it is gone."""
    box.create("a", box.config("a", "sh", "-c", "sleep 1000 & while :; do :; done"))
    group = client.cgroup(box.root, "a")
    wait_until(lambda: group.stats().pids == 2, "both processes are there")
    wait_until(lambda: group.stats().cpu_usage_ns > 20_000_000, "CPU time is counted")
    stats = group.stats()
    assert stats.memory_bytes > 0
    assert stats.memory_limit_bytes is None
    assert (stats.memory_peak_bytes or 0) >= stats.memory_bytes // 2
    group.freeze()
    used = group.stats().cpu_usage_ns
    subprocess.run(["busybox", "usleep", "50000"], check=True)
    assert group.stats().cpu_usage_ns == used
    group.thaw()
    wait_until(lambda: group.stats().cpu_usage_ns > used, "it goes on")
    group.freeze()
    group.kill_all()
    assert group.pids() == []
    assert box.ended("a").signal == signal.SIGKILL
    group.delete()
    group.delete()
    assert group.stats().pids == 0


def test_groups_inside_the_container_are_removed(box: Box) -> None:
    """A container that has its cgroup writable may make groups of its own; delete removes them."""
    config = box.config("a", "sh", "-c", f"mkdir -p {groups.inside('pids')}/x/y && sleep 100")
    for mount in config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"].remove("ro")
    box.create("a", config)
    wait_until(lambda: groups.folder("pids", f"{box.parent}/a/x/y").is_dir(), "the inner group is there")
    client.delete(box.root, "a", force=True)
    assert not groups.folder("pids", f"{box.parent}/a").exists()
    with pytest.raises(errors.UnknownContainer, match="does not exist"):
        state.load(box.root, "a")


def test_version_2_device_program(tmp_path: Path) -> None:
    """In a group of the unified hierarchy, only what the rules allow can be opened."""
    unified = cgroups.current_layout().unified
    assert unified, "no cgroup2 is mounted here"
    folder = Path(f"{unified}/orch/test-devices-{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        rules = (
            DeviceRule(allow=False, kind="a", major=None, minor=None, access="rwm"),
            DeviceRule(allow=True, kind="c", major=1, minor=11, access="r"),
        )
        devicefilter.attach(str(folder), devicefilter.whole(rules))
        script = (
            f"echo 0 > {folder}/cgroup.procs; cd {tmp_path}; : < /dev/null && echo null;"
            "mknod disk b 254 0 || echo no mknod; (: < /dev/vda) 2>/dev/null || echo no disk;"
            "(: > /dev/kmsg) 2>/dev/null || echo no write"
        )
        out = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False).stdout
    finally:
        wait_until(lambda: _removed(folder), "the group is empty")
    assert out.splitlines() == ["null", "no mknod", "no disk", "no write"]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True

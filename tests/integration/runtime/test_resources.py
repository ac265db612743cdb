"""Every limit of `linux.resources` in a real group, its effect where it can be seen, and updates of all or nothing."""

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups, cgroupupdate, client, errors, measurement, resources
from runtime.fields import Fields
from runtime.resources import Resources
from tests.integration.runtime.conftest import Box, wait_until
from tests.integration.runtime.test_exec import execute
from tests.support import groups

pytestmark = pytest.mark.root

on_v1 = pytest.mark.skipif(groups.V2, reason="cgroup v1 only: this machine has v2")
on_v2 = pytest.mark.skipif(not groups.V2, reason="cgroup v2 only: this machine has v1; the virtual machine has v2")
MB = 1 << 20


def limits(**given: Any) -> Resources:
    return resources.parse(Fields({"resources": given}, "linux"))


def limited(box: Box, name: str, *args: str, **given: Any) -> None:
    """A container with these limits, beside the default ones; without arguments it sleeps."""
    config = box.config(name, *(args or ("sleep", "1000")))
    config["linux"]["resources"].update(given)
    box.create(name, config)


def held(box: Box, controller: str, file: str, name: str = "a") -> str:
    """What a file of the container's group says."""
    return (groups.folder(controller, f"{box.parent}/{name}") / file).read_text().strip()


def refused(box: Box, **given: Any) -> str:
    """Why a container is not made, and that nothing of it is left."""
    with pytest.raises(errors.ContainerError) as caught:
        limited(box, "a", **given)
    assert not Path(box.root, "a").exists()
    assert groups.below(box.parent) == []
    return caught.value.message


def disk_of(path: Path) -> str:
    """MAJOR:MINOR of the whole disk that a folder is on; skips where there is none."""
    device = path.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    if not Path(f"/sys/dev/block/{name}").exists():
        pytest.skip(f"{path} is on no block device here, so no input or output can be limited")
    whole = Path(f"/sys/dev/block/{name}").resolve()
    return (whole.parent / "dev").read_text().strip() if (whole / "partition").exists() else name


@on_v1
def test_a_default_container_has_no_further_folders(box: Box) -> None:
    """Each would cost its start time: block I/O, processor sets and the like come with a limit only."""
    limited(box, "a")
    controllers = {Path(folder.removesuffix(f"{box.parent}/a")).name for folder in groups.below(box.parent)}
    assert controllers == {"memory", "pids", "cpu", "cpuacct", "freezer", "devices"}


@on_v1
def test_memory_and_processor_on_version_1(box: Box) -> None:
    """What is only there, and what is called otherwise than on version 2."""
    memory = {"swappiness": 7, "disableOOMKiller": True, "useHierarchy": True, "kernelTCP": 4 * MB, "limit": 32 * MB}
    cpu = {"quota": 50_000, "period": 100_000, "burst": 20_000, "cpus": "0", "mems": "0"}
    limited(box, "a", memory={**memory, "reservation": 16 * MB}, cpu=cpu)
    assert held(box, "memory", "memory.swappiness") == "7"
    assert held(box, "memory", "memory.oom_control").startswith("oom_kill_disable 1")
    assert held(box, "memory", "memory.kmem.tcp.limit_in_bytes") == str(4 * MB)
    assert held(box, "memory", "memory.soft_limit_in_bytes") == str(16 * MB)
    assert held(box, "cpu", "cpu.cfs_burst_us") == "20000"
    assert held(box, "cpuset", "cpuset.cpus") == "0"
    limited(box, "b", cpu={"idle": 1})
    assert held(box, "cpu", "cpu.idle", "b") == "1"


@on_v1
def test_real_time_needs_room_above(box: Box) -> None:
    """Where the groups above have none it is refused with the remedy, and taken where they have."""
    if not groups.folder("cpu", "/cpu.rt_runtime_us").exists():
        pytest.skip("this kernel has no real-time groups (CONFIG_RT_GROUP_SCHED)")
    realtime = {"realtimeRuntime": 1000, "realtimePeriod": 1_000_000}
    assert "cpu.realtimeRuntime: " in (said := refused(box, cpu=realtime))
    assert "every group above needs as much" in said
    parts = box.parent.strip("/").split("/")
    above = [groups.folder("cpu", "/" + "/".join(parts[:depth])) for depth in range(1, len(parts) + 1)]
    try:
        for folder in above:
            folder.mkdir(exist_ok=True)
            (folder / "cpu.rt_runtime_us").write_text("2000")
        limited(box, "a", cpu=realtime)
        assert held(box, "cpu", "cpu.rt_runtime_us") == "1000"
        box.delete("a", force=True)
    finally:
        for folder in reversed(above):
            # The kernel counts a group that was removed for a moment more.
            wait_until(functools.partial(_takes_no_time, folder), "it can be as it was")


def _takes_no_time(group: Path) -> bool:
    try:
        (group / "cpu.rt_runtime_us").write_text("0")
    except OSError:
        return False
    return True


@on_v1
@pytest.mark.parametrize(
    ("controller", "given", "field"),
    [
        ("hugetlb", {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, "hugepageLimits[2MB]"),
        ("net_cls", {"network": {"classID": 5}}, "network.classID"),
        ("net_prio", {"network": {"priorities": [{"name": "lo", "priority": 5}]}}, "network.priorities[lo]"),
        ("rdma", {"rdma": {"mlx4_0": {"hcaHandles": 5}}}, "rdma[mlx4_0]"),
    ],
)
def test_a_controller_that_is_not_mounted(box: Box, controller: str, given: dict[str, Any], field: str) -> None:
    """One error with the field, the reason and the remedy."""
    if groups.LAYOUT.folder(controller, "/"):
        pytest.skip(f"the {controller} controller is mounted here")
    said = refused(box, **given)
    assert said.startswith(f"linux.resources.{field}: cgroup {box.parent}/a has no {controller} controller; mount it")


@on_v1
def test_unified_needs_version_2(box: Box) -> None:
    assert refused(box, unified={"memory.high": "1"}).startswith("linux.resources.unified[memory.high]: ")


@on_v2
def test_what_version_2_does_not_take(box: Box) -> None:
    """By name, also where only the kernel knows."""
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"network": {"classID": 5}}, "network.classID"),
        ({"memory": {"swappiness": 5}}, "memory.swappiness"),
        ({"unified": {"memory.nosuch": "5"}}, "unified[memory.nosuch]"),
        ({"unified": {"nosuch.max": "5"}}, "unified[nosuch.max]"),
        ({"rdma": {"mlx4_0": {"hcaHandles": 5}}}, "rdma[mlx4_0]"),
    )
    for given, field in cases:
        assert refused(box, **given).startswith(f"linux.resources.{field}: "), field


@on_v2
def test_files_of_version_2(box: Box) -> None:
    """Burst, idle, huge pages, weights, and whatever `unified` names, which has the last word."""
    cpu = {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 20_000, "cpus": "0", "mems": "0"}
    unified = {"memory.high": str(48 * MB), "pids.max": "44", "memory.oom.group": "1", "cgroup.max.depth": "3"}
    more = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MB}], "blockIO": {"weight": 100}}
    limited(box, "a", cpu=cpu, unified=unified, memory={"limit": 64 * MB, "reservation": 16 * MB}, **more)
    expected = {
        "cpu.weight": "20",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "20000",
        "cpuset.cpus": "0",
        "memory.max": str(64 * MB),
        "memory.low": str(16 * MB),
        "hugetlb.2MB.max": str(4 * MB),
        "hugetlb.2MB.rsvd.max": str(4 * MB),
        "io.weight": "default 910",
        **unified,
    }
    assert {file: held(box, "", file) for file in expected} == expected
    limited(box, "b", cpu={"idle": 1})
    assert held(box, "", "cpu.idle", "b") == "1"


@on_v2
def test_out_of_memory_takes_the_whole_group_when_it_should(box: Box) -> None:
    """With memory.oom.group no process goes on after another was killed."""
    script = "sleep 1000 & tail /dev/zero; echo went on; sleep 1000"
    memory = {"limit": 16 * MB, "swap": 16 * MB}
    limited(box, "a", "sh", "-c", script, memory=memory, unified={"memory.oom.group": "1"})
    ended = box.ended("a")
    assert (ended.signal, ended.oom_killed, ended.memory_limit_bytes) == (signal.SIGKILL, True, 16 * MB)
    assert "went on" not in box.output("a")


def test_block_io_is_limited_and_counted(box: Box) -> None:
    """Two megabytes at one megabyte a second take a second at least, and the statistics tell of them."""
    major, minor = map(int, disk_of(box.folder).split(":"))
    rate = [{"major": major, "minor": minor, "rate": MB}]
    script = "dd if=/dev/zero of=/file bs=256k count=8 oflag=direct 2>/dev/null; echo done; sleep 1000"
    started = time.monotonic()
    limited(box, "a", "sh", "-c", script, blockIO={"throttleWriteBpsDevice": rate})
    wait_until(lambda: box.output("a") == "done", "it is written", 60)
    assert time.monotonic() - started > 1.2
    measured = measurement.measure(client.cgroup(box.root, "a"))
    written = [
        count for count in measured.io_bytes if (count.major, count.minor, count.kind) == (major, minor, "Write")
    ]
    assert sum(count.value for count in written) >= 2 * MB
    assert any(count.value for count in measured.io_operations)


@on_v1
def test_bfq_weight_on_version_1(box: Box) -> None:
    limited(box, "a", blockIO={"weight": 300})
    file = next(name for name in ("blkio.bfq.weight", "blkio.weight") if (_blkio(box) / name).exists())
    assert held(box, "blkio", file) == "300"
    box.delete("a", force=True)
    assert "this kernel has no blkio.leaf_weight" in refused(box, blockIO={"leafWeight": 300})


def _blkio(box: Box) -> Path:
    return groups.folder("blkio", f"{box.parent}/a")


def test_statistics_tell_of_processor_and_memory(box: Box) -> None:
    """User and kernel time apart, throttling, the limits in force, and a child that was killed for memory."""
    script = "tail /dev/zero; while :; do :; done"
    limited(box, "a", "sh", "-c", script, memory={"limit": 16 * MB, "swap": 16 * MB})
    group = client.cgroup(box.root, "a")
    wait_until(lambda: group.stats().oom_kills >= 1 and group.stats().pids == 1, "its child is killed", 60)
    cgroupupdate.update(group, limits(cpu={"quota": 10_000, "period": 100_000}))
    wait_until(lambda: measurement.measure(group).cpu.throttled_periods >= 3, "it is held back", 60)
    found = measurement.measure(group)
    assert found.cpu.throttled_ns > 0
    assert found.cpu.user_ns > 0
    assert found.cpu.user_ns + found.cpu.kernel_ns == pytest.approx(found.cpu.total_ns, rel=0.5)
    assert found.memory.oom_kills == 1
    assert found.memory.usage.limit == 16 * MB
    assert found.memory.usage.peak >= 15 * MB or groups.V2  # Linux 6.1 has no peak there
    assert found.memory.raw
    assert (found.pids, found.pids_limit) == (1, 4096)
    if not groups.V2:
        assert sum(found.cpu.each_ns) == pytest.approx(found.cpu.total_ns, rel=0.5)


def test_an_update_reaches_controllers_that_the_container_did_not_have(box: Box) -> None:
    """Its processes, those below it and later ones are where the new limit is, and all folders go with it."""
    limited(box, "a", "sh", "-c", "sleep 1000 & sleep 1000")
    wait_until(lambda: len(client.cgroup(box.root, "a").pids()) == 2, "both processes are there", 60)
    cgroupupdate.update(client.cgroup(box.root, "a"), limits(cpu={"cpus": "0"}, blockIO={"weight": 200}))
    assert held(box, "cpuset", "cpuset.cpus") == "0"
    pids = client.cgroup(box.root, "a").pids()
    assert [os.sched_getaffinity(pid) for pid in pids] == [{0}, {0}]
    assert sorted(map(int, held(box, "cpuset", "cgroup.procs").split())) == pids
    code, out = execute(box, "a", "grep", "Cpus_allowed_list", "/proc/self/status")
    assert (code, out.split()[-1]) == (0, "0")
    client.delete(box.root, "a", force=True)
    assert groups.below(box.parent) == []


def test_an_update_is_all_or_nothing(box: Box) -> None:
    """The processor set cannot be, so the quota stays, and a folder that was made for it is gone."""
    limited(box, "a", cpu={"quota": 50_000, "period": 100_000}, memory={"limit": 64 * MB, "swap": 64 * MB})
    group = client.cgroup(box.root, "a")
    before = {path: path.read_text() for path in _files(box)}
    wanted = limits(
        cpu={"quota": 20_000, "cpus": "4000"}, memory={"limit": 32 * MB, "swap": 48 * MB}, pids={"limit": 9}
    )
    with pytest.raises(errors.SetupFailed, match=r"^linux\.resources\.cpu\.cpus: cannot write '4000'"):
        cgroupupdate.update(group, wanted)
    assert {path: path.read_text() for path in _files(box)} == before
    if not groups.V2:
        assert not groups.folder("cpuset", f"{box.parent}/a").exists()
    missing = {"throttleReadBpsDevice": [{"major": 4000, "minor": 0, "rate": 5}]}
    wanted = limits(memory={"limit": 32 * MB}, blockIO=missing)
    with pytest.raises(errors.SetupFailed, match=r"throttleReadBpsDevice: .*'4000:0 .*no such block device"):
        cgroupupdate.update(group, wanted)
    assert {path: path.read_text() for path in _files(box)} == before


def _files(box: Box) -> list[Path]:
    names = {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max"),
        "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.max"),
        "pids": ("pids.max",),
    }
    paths = (
        groups.folder(controller, f"{box.parent}/a") / file for controller, files in names.items() for file in files
    )
    found = [path for path in paths if path.exists()]
    assert len(found) >= 4, "of these some are there on either version"
    return found


def test_limits_that_depend_on_each_other_change_in_any_order(box: Box) -> None:
    """Up and down again: memory with its swap, a burst with its quota, a weight with idleness."""
    limited(box, "a", memory={"limit": 32 * MB, "swap": 48 * MB}, cpu={"quota": 50_000, "period": 100_000})
    group = client.cgroup(box.root, "a")
    for memory, quota in ((128 * MB, 90_000), (24 * MB, 20_000)):
        wanted = limits(memory={"limit": memory, "swap": memory + MB}, cpu={"quota": quota, "burst": quota})
        cgroupupdate.update(group, wanted)
        assert group.memory_limit() == memory
        assert held(box, "cpu", "cpu.max.burst" if groups.V2 else "cpu.cfs_burst_us") == str(quota)
    cgroupupdate.update(group, limits(cpu={"idle": 1}))
    cgroupupdate.update(group, limits(cpu={"idle": 0, "shares": 512}))
    assert held(box, "cpu", "cpu.idle") == "0"


def test_memory_in_use_is_not_cut_when_asked_to_check(box: Box) -> None:
    """checkBeforeUpdate refuses, and nothing is killed."""
    script = "dd if=/dev/zero of=/dev/shm/file bs=1M count=24 2>/dev/null; echo done; sleep 1000"
    limited(box, "a", "sh", "-c", script, memory={"limit": 64 * MB, "swap": 64 * MB})
    wait_until(lambda: box.output("a") == "done", "it holds memory", 60)
    group = client.cgroup(box.root, "a")
    with pytest.raises(errors.InvalidSpec, match=r"^linux\.resources\.memory\.limit: 8388608 is below the"):
        cgroupupdate.update(group, limits(memory={"limit": 8 * MB, "checkBeforeUpdate": True}))
    assert group.memory_limit() == 64 * MB
    assert group.pids()
    assert group.oom_kills() == 0


def test_an_exit_for_memory_tells_the_limit_in_force(box: Box) -> None:
    """Also one that an update has changed since the start."""
    limited(box, "b", "sh", "-c", "until [ -e /dev/shm/go ]; do usleep 20000; done; exec tail /dev/zero")
    group = client.cgroup(box.root, "b")
    cgroupupdate.update(group, limits(memory={"limit": 16 * MB, "swap": 16 * MB}))
    assert execute(box, "b", "touch", "/dev/shm/go")[0] == 0
    ended = box.ended("b")
    assert (ended.exit_code, ended.oom_killed, ended.memory_limit_bytes) == (137, True, 16 * MB)


def test_a_relative_path_is_below_our_parent(box: Box) -> None:
    """`cgroupsPath: a/b` is /orch/a/b, and what is left of it goes with the container."""
    config = box.config("a", "sleep", "1000")
    relative = box.parent.removeprefix("/orch/")
    config["linux"]["cgroupsPath"] = f"{relative}/a"
    box.create("a", config)
    assert groups.folder("pids", f"{box.parent}/a").is_dir()
    assert cgroups.of(f"{box.parent}/a").pids()
    box.delete("a", force=True)
    assert groups.below(box.parent) == []

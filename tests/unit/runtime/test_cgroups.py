"""What is written where, for version 1, version 2 and a hybrid; and version 2 over a tree of ordinary files."""

from pathlib import Path

import pytest

from runtime import cgroups, cgroups_v1, cgroups_v2, errors
from runtime.resources import DeviceRule, Resources

LIMITS = Resources(
    memory_limit_bytes=100,
    memory_swap_bytes=150,
    cpu_shares=1024,
    cpu_quota_us=50_000,
    cpu_period_us=100_000,
    cpus="0-1",
    pids_limit=17,
)


def mountinfo(*lines: str) -> str:
    return "\n".join(f"{number} 1 0:{number} / {line}" for number, line in enumerate(lines, 30))


def test_version_1_with_controllers_mounted_together() -> None:
    """A folder that two controllers share is made once."""
    text = mountinfo(
        "/sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:1 - cgroup cgroup rw,cpu,cpuacct",
        "/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "/sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
        "/sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
    )
    layout = cgroups.find_layout(text)
    assert not layout.is_v2
    group = cgroups.Cgroup.plan(layout, "/orch/a", Resources())
    assert group.folders == ("/sys/fs/cgroup/memory/orch/a", "/sys/fs/cgroup/cpu,cpuacct/orch/a")
    assert cgroups.visible_folders(group)[1] == ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/orch/a")


def test_version_2() -> None:
    """One mount, one folder, and that folder is all that a container sees."""
    layout = cgroups.find_layout(mountinfo("/sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"))
    assert layout.is_v2
    group = cgroups.Cgroup.plan(layout, "/orch/a", LIMITS)
    assert cgroups.visible_folders(group) == (("", "/sys/fs/cgroup/orch/a"),)


def test_version_1_settings() -> None:
    """Memory before memory with swap; the cpuset only when it is asked for."""
    assert [setting[:3] for setting in cgroups_v1.settings(LIMITS)] == [
        ("memory", "memory.limit_in_bytes", "100"),
        ("memory", "memory.memsw.limit_in_bytes", "150"),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("pids", "pids.max", "17"),
    ]
    assert "cpuset" in cgroups_v1.controllers(LIMITS)
    assert "cpuset" not in cgroups_v1.controllers(Resources())
    assert [setting[:3] for setting in cgroups_v1.settings(Resources(pids_limit=-1))] == [("pids", "pids.max", "max")]


def test_version_1_devices() -> None:
    """The rules in order, then the nodes that every container has."""
    rules = (
        DeviceRule(allow=False, kind="a", major=None, minor=None, access="rwm"),
        DeviceRule(allow=True, kind="b", major=8, minor=None, access="r"),
    )
    written = [setting[:3] for setting in cgroups_v1.settings(Resources(devices=rules))]
    assert written[:2] == [("devices", "devices.deny", "a"), ("devices", "devices.allow", "b 8:* r")]
    assert ("devices", "devices.allow", "c 1:3 rwm") in written
    assert cgroups_v1.settings(Resources()) == []


def test_version_2_settings() -> None:
    """Swap is counted alone, quota and period are one file, shares become a weight."""
    assert [setting[1:3] for setting in cgroups_v2.settings(LIMITS)] == [
        ("memory.max", "100"),
        ("memory.swap.max", "50"),
        ("cpu.weight", "39"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "17"),
    ]
    unlimited = Resources(memory_limit_bytes=-1, cpu_quota_us=-1, pids_limit=0)
    assert [setting[1:3] for setting in cgroups_v2.settings(unlimited)] == [
        ("memory.max", "max"),
        ("cpu.max", "max"),
        ("pids.max", "max"),
    ]


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (1, 1)])
def test_shares_as_weight(shares: int, weight: int) -> None:
    """The specification's formula at its ends and at the default."""
    assert cgroups_v2.weight(shares) == weight


def test_version_2_swap_needs_a_limit() -> None:
    """Memory with swap below memory, or without it, has no meaning on version 2."""
    with pytest.raises(errors.InvalidSpec, match=r"memory.swap: needs memory.limit"):
        cgroups_v2.settings(Resources(memory_swap_bytes=5))
    with pytest.raises(errors.InvalidSpec, match=r"memory.swap: 5 is below"):
        cgroups_v2.settings(Resources(memory_swap_bytes=5, memory_limit_bytes=6))


def test_subtree_control() -> None:
    """Only what is available and not enabled yet is written, from the root down."""
    assert cgroups_v2.ancestors("/orch/n1/c1") == ["/", "/orch", "/orch/n1"]
    assert cgroups_v2.subtree_control("cpu memory pids io", "memory", ("cpu", "memory", "pids")) == "+cpu +pids"
    assert not cgroups_v2.subtree_control("hugetlb", "", ("cpu",))


def fake_v2(root: Path, *folders: str) -> cgroups.Layout:
    """A tree of ordinary files in the place of cgroup2."""
    for folder in ("", *folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "cgroup.controllers").write_text("cpu memory pids cpuset")
        (root / folder / "cgroup.subtree_control").write_text("")
    return cgroups.Layout(unified=str(root))


def test_version_2_over_files(tmp_path: Path) -> None:
    """Controllers are enabled along the path, limits written, statistics read."""
    layout = fake_v2(tmp_path, "orch", "orch/n1", "orch/n1/c1")
    folder = tmp_path / "orch/n1/c1"
    files = ("memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "cpuset.cpus", "pids.max", "cgroup.procs")
    for name in files:
        (folder / name).write_text("")
    group = cgroups.Cgroup.plan(layout, "/orch/n1/c1", LIMITS)
    group.create(LIMITS)
    group.apply(LIMITS)
    for above in ("", "orch", "orch/n1"):
        enabled = (tmp_path / above / "cgroup.subtree_control").read_text()
        assert set(enabled.split()) == {"+cpu", "+memory", "+pids", "+cpuset"}, above
    assert (folder / "memory.max").read_text() == "100"
    assert (folder / "cpu.max").read_text() == "50000 100000"
    (folder / "cpu.stat").write_text("usage_usec 1234\nuser_usec 1\n")
    (folder / "memory.current").write_text("77\n")
    (folder / "memory.peak").write_text("99\n")
    (folder / "pids.current").write_text("3\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 2\n")
    assert group.stats() == cgroups.Stats(
        cpu_usage_ns=1_234_000, memory_bytes=77, memory_limit_bytes=100, memory_peak_bytes=99, pids=3, oom_kills=2
    )


def test_group_with_processes_is_not_taken_over(tmp_path: Path) -> None:
    """The path of a live container is refused, with the remedy."""
    layout = fake_v2(tmp_path, "orch", "orch/c1")
    (tmp_path / "orch/c1/cgroup.procs").write_text("17\n")
    with pytest.raises(errors.SetupFailed, match="holds processes; use another path"):
        cgroups.Cgroup.plan(layout, "/orch/c1", Resources()).create(Resources())


def test_missing_controller_is_named() -> None:
    """A limit that the machine cannot hold is refused, not ignored."""
    layout = cgroups.Layout(controllers=(("pids", "/nowhere"),))
    with pytest.raises(errors.SetupFailed, match=r"^linux.resources.memory.limit: .* no memory controller; mount it"):
        cgroups.Cgroup.plan(layout, "/a", LIMITS).apply(LIMITS)


def test_a_machine_without_cgroups_is_told_so() -> None:
    """Unless the container wants none; and what is gone can be looked at and removed."""
    with pytest.raises(errors.SetupFailed, match="nothing is mounted; mount cgroup2"):
        cgroups.Cgroup.plan(cgroups.Layout(), "/a", Resources())
    group = cgroups.existing(cgroups.Layout(), "/a")
    group.delete()
    assert group.pids() == []


def test_stats_of_a_group_that_is_gone() -> None:
    """Zero everywhere, no error: containers end while they are measured."""
    layout = cgroups.Layout(controllers=(("memory", "/nowhere"), ("cpuacct", "/nowhere")))
    assert cgroups.Cgroup.plan(layout, "/a", Resources()).stats().memory_bytes == 0

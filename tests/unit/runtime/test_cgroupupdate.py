"""An update is all or nothing: over a tree of ordinary files, and by what is written to have an old limit back."""

from pathlib import Path

import pytest

from runtime import cgroups, cgroupupdate, errors
from runtime.resources import BlockIo, DeviceValue, Resources


@pytest.mark.parametrize(
    ("file", "value", "text", "back"),
    [
        ("memory.limit_in_bytes", "5", "9223372036854771712\n", "9223372036854771712"),
        ("cpu.max", "5 100000", "max 100000\n", "max 100000"),
        ("cpuset.cpus", "0", "\n", ""),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "0"),
        ("io.max", "8:0 rbps=1", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:0 rbps=1", "8:16 rbps=9 wbps=max\n8:0 rbps=7 wbps=max\n", "8:0 rbps=7 wbps=max"),
        ("io.max", "8:0 rbps=1\n8:1 rbps=2", "8:1 rbps=3\n", "8:0 rbps=max wbps=max riops=max wiops=max\n8:1 rbps=3"),
        ("io.weight", "910", "default 100\n8:0 200\n", "100"),
        ("io.bfq.weight", "300", "100\n", "100"),
        ("io.weight", "8:0 910", "default 100\n8:0 200\n", "8:0 200"),
        ("io.weight", "8:1 910", "default 100\n8:0 200\n", "8:1 default"),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:1 4\n", "8:0 0"),
        ("blkio.bfq.weight_device", "8:0 5", "default 100\n", "8:0 default"),
        ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max", "", "mlx4_0 hca_handle=max hca_object=max"),
        ("net_prio.ifpriomap", "lo 5", "lo 1\neth0 2\n", "lo 1"),
    ],
)
def test_what_brings_an_old_limit_back(file: str, value: str, text: str, back: str) -> None:
    """Files of one value, and those with a line for each device, of which only the one that changed counts."""
    assert cgroupupdate.old_value(file, value, text) == back


def fake_group(root: Path, **files: str) -> cgroups.Cgroup:
    """A group of version 2 made of ordinary files, whose names have _ for a dot."""
    (root / "a").mkdir()
    for folder in (root, root / "a"):
        (folder / "cgroup.controllers").write_text("cpu memory pids io cpuset")
        (folder / "cgroup.subtree_control").write_text("")
    for name, text in files.items():
        (root / "a" / name.replace("_", ".")).write_text(text)
    return cgroups.existing(cgroups.Layout(unified=str(root)), "/a")


def test_a_failed_write_puts_the_earlier_ones_back(tmp_path: Path) -> None:
    """Memory was changed, the number of processes cannot be: memory is as before, and the error names the field."""
    group = fake_group(tmp_path, memory_max="1000\n", memory_current="5\n", cpu_max="max 100000\n")
    limits = Resources(memory_limit_bytes=500, cpu_quota_us=5000, pids_limit=7)
    with pytest.raises(errors.SetupFailed, match=r"^linux\.resources\.pids\.limit: .*this kernel has no pids\.max"):
        cgroupupdate.update(group, limits)
    assert (tmp_path / "a/memory.max").read_text().startswith("1000")
    assert (tmp_path / "a/cpu.max").read_text().strip() == "max 100000"


def test_a_limit_that_another_machine_would_have_changes_nothing(tmp_path: Path) -> None:
    """A controller that the group does not have is found out before anything is written."""
    group = fake_group(tmp_path, memory_max="1000\n")
    block_io = BlockIo(read_bps=(DeviceValue(major=8, minor=0, value=1),))
    (tmp_path / "a/cgroup.controllers").write_text("memory")
    with pytest.raises(errors.SetupFailed, match=r"^linux\.resources\.blockIO\.throttleReadBpsDevice: .* no io "):
        cgroupupdate.update(group, Resources(memory_limit_bytes=500, block_io=block_io))
    assert (tmp_path / "a/memory.max").read_text() == "1000\n"


def test_memory_is_checked_before_it_is_limited(tmp_path: Path) -> None:
    """With checkBeforeUpdate a limit below what is in use is refused, and without it written."""
    group = fake_group(tmp_path, memory_max="max\n", memory_current="700\n")
    limits = Resources(memory_limit_bytes=500, memory_check=True)
    with pytest.raises(errors.InvalidSpec, match=r"^linux\.resources\.memory\.limit: 500 is below the 700 bytes"):
        cgroupupdate.update(group, limits)
    assert (tmp_path / "a/memory.max").read_text() == "max\n"
    cgroupupdate.update(group, Resources(memory_limit_bytes=500))
    assert (tmp_path / "a/memory.max").read_text().startswith("500")


def test_swap_counts_from_the_limit_in_force(tmp_path: Path) -> None:
    """Version 2 counts swap alone: 800 of memory with swap over a limit of 500 is a swap of 300."""
    group = fake_group(tmp_path, memory_max="500\n", memory_swap_max="max\n")
    cgroupupdate.update(group, Resources(memory_swap_bytes=800))
    assert (tmp_path / "a/memory.swap.max").read_text().startswith("300")

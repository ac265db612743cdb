"""What is read of a group's files on either version, and how runc's callers are told."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime import cgroups, measurement
from runtime.cli import measuring
from runtime.measurement import Account, Cpu, IoCount, Measurement

V1 = {
    "cpu/cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 5000\n",
    "cpuacct/cpuacct.usage": "900\n",
    "cpuacct/cpuacct.usage_user": "600\n",
    "cpuacct/cpuacct.usage_sys": "300\n",
    "cpuacct/cpuacct.usage_percpu": "500 400 \n",
    "cpuacct/cpuacct.usage_percpu_user": "400 200 \n",
    "cpuacct/cpuacct.usage_percpu_sys": "100 200 \n",
    "memory/memory.usage_in_bytes": "70\n",
    "memory/memory.max_usage_in_bytes": "90\n",
    "memory/memory.limit_in_bytes": "100\n",
    "memory/memory.failcnt": "3\n",
    "memory/memory.memsw.usage_in_bytes": "75\n",
    "memory/memory.memsw.max_usage_in_bytes": "95\n",
    "memory/memory.memsw.limit_in_bytes": "200\n",
    "memory/memory.memsw.failcnt": "1\n",
    "memory/memory.stat": "cache 1\nrss 2\nswap 5\ntotal_cache 11\ntotal_rss 12\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids/pids.current": "4\n",
    "pids/pids.max": "17\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n",
    "blkio/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Total 1\nTotal 1\n",
    "blkio/blkio.bfq.io_service_bytes_recursive": "Total 0\n",
}
V2 = {
    "cgroup.controllers": "cpu memory pids io",
    "cpu.stat": "usage_usec 9\nuser_usec 6\nsystem_usec 3\nnr_periods 10\nnr_throttled 4\nthrottled_usec 5\n",
    "memory.current": "70\n",
    "memory.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
    "memory.swap.current": "5\n",
    "memory.swap.max": "50\n",
    "memory.swap.events": "high 0\nmax 1\nfail 0\n",
    "memory.stat": "anon 12\nfile 11\nkernel 8\nsock 4\n",
    "pids.current": "4\n",
    "pids.max": "max\n",
    "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0 cost.usage=7\n8:16 \n",
}


def measured(root: Path, layout: cgroups.Layout, files: Mapping[str, str], places: Mapping[str, Path]) -> Measurement:
    for name, text in files.items():
        controller, _, file = name.rpartition("/")
        (places[controller] / "a").mkdir(parents=True, exist_ok=True)
        (places[controller] / "a" / file).write_text(text)
    assert root.exists()
    return measurement.measure(cgroups.existing(layout, "/a"))


def on_version_1(root: Path) -> Measurement:
    names = ("cpu", "cpuacct", "memory", "pids", "blkio")
    layout = cgroups.Layout(controllers=tuple((name, str(root / name)) for name in names))
    return measured(root, layout, V1, {name: root / name for name in names})


def on_version_2(root: Path) -> Measurement:
    return measured(root, cgroups.Layout(unified=str(root)), V2, {"": root})


def test_version_1(tmp_path: Path) -> None:
    """By processor, with swap; the sums over all devices are left out, and BFQ's files where they count nothing."""
    found = on_version_1(tmp_path)
    assert found.cpu == Cpu(
        total_ns=900,
        user_ns=600,
        kernel_ns=300,
        each_ns=(500, 400),
        each_user_ns=(400, 200),
        each_kernel_ns=(100, 200),
        periods=10,
        throttled_periods=4,
        throttled_ns=5000,
    )
    assert found.memory.usage == Account(usage=70, peak=90, limit=100, hits=3)
    assert found.memory.swap == Account(usage=75, peak=95, limit=200, hits=1)
    assert found.memory.kernel == Account()
    assert (found.memory.cache, found.memory.oom_kills, found.memory.raw["rss"]) == (11, 2, 2)
    assert (found.pids, found.pids_limit) == (4, 17)
    kinds = [(count.kind, count.value) for count in found.io_bytes]
    assert kinds == [("Read", 4096), ("Write", 0), ("Total", 4096)]
    assert found.io_operations[0] == IoCount(major=8, minor=0, kind="Read", value=1)


def test_version_2(tmp_path: Path) -> None:
    """Microseconds become nanoseconds; keys of cost models are left alone; `max` is no limit."""
    found = on_version_2(tmp_path)
    assert found.cpu == Cpu(
        total_ns=9000, user_ns=6000, kernel_ns=3000, periods=10, throttled_periods=4, throttled_ns=5000
    )
    assert found.memory.usage == Account(usage=70, limit=measurement.NO_LIMIT, hits=3)
    assert found.memory.swap == Account(usage=5, limit=50, hits=1)
    assert (found.memory.cache, found.memory.oom_kills, found.memory.kernel.usage) == (11, 2, 8)
    assert (found.pids, found.pids_limit) == (4, 0)
    assert [(count.kind, count.value) for count in found.io_bytes] == [("Read", 4096), ("Write", 0), ("Discard", 0)]
    assert [count.value for count in found.io_operations] == [1, 0, 0]


def test_nothing_there_is_zero(tmp_path: Path) -> None:
    """Containers end while they are measured."""
    for layout in (cgroups.Layout(unified=str(tmp_path)), cgroups.Layout(controllers=(("cpu", str(tmp_path)),))):
        found = measurement.measure(cgroups.existing(layout, "/gone"))
        assert (found.cpu.total_ns, found.memory.usage.usage, found.pids, found.io_bytes) == (0, 0, 0, ())


def test_the_form_that_clients_parse(tmp_path: Path) -> None:
    """The names of runc's statistics (its `events --stats`), and no others."""
    data = measuring.data(on_version_1(tmp_path))
    assert data["cpu"]["usage"]["percpu_kernel"] == [100, 200]
    assert data["cpu"]["throttling"] == {"periods": 10, "throttledPeriods": 4, "throttledTime": 5000}
    assert data["memory"]["usage"] == {"limit": 100, "usage": 70, "max": 90, "failcnt": 3}
    assert data["pids"] == {"current": 4, "limit": 17}
    assert data["blkio"]["ioServiceBytesRecursive"][0] == {"major": 8, "minor": 0, "op": "Read", "value": 4096}
    assert set(data) == {"cpu", "memory", "pids", "blkio", "hugetlb"}


@pytest.mark.parametrize(("kilobytes", "name"), [(64, "64KB"), (2048, "2MB"), (32768, "32MB"), (1 << 20, "1GB")])
def test_sizes_of_huge_pages(kilobytes: int, name: str) -> None:
    assert measurement.page_size(kilobytes) == name

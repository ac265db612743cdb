"""`linux.resources`: every field is read, zero asks for nothing, and each version says what it does with each."""

from typing import Any

import pytest

from runtime import cgroups, cgroups_v1, cgroups_v2, errors, resources
from runtime.cgroupsetting import Setting
from runtime.fields import Fields
from runtime.resources import Resources


def parse(**given: Any) -> Resources:
    return resources.parse(Fields({"resources": given}, "linux"))


def triples(settings: list[Setting]) -> list[tuple[str, str, str]]:
    """What is written, and the field that it is for."""
    return [(setting.file, setting.value, setting.field) for setting in settings]


def only(*files: str) -> Any:
    """A machine whose groups have these files."""
    return lambda _controller, file: file in files


NOTHING: list[dict[str, Any]] = [
    {},
    {"memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "kernelTCP": 0, "disableOOMKiller": False}},
    {"memory": {"useHierarchy": False, "checkBeforeUpdate": False, "kernel": -1, "swappiness": None}},
    {"cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""}},
    {"pids": {"limit": 0}, "rdma": {}, "unified": {}, "network": {"classID": 0, "priorities": []}},
    {"blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": [], "throttleReadBpsDevice": None}},
    {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 0}]}, "hugepageLimits": [], "devices": []},
]


@pytest.mark.parametrize("given", NOTHING)
def test_zero_and_empty_ask_for_nothing(given: dict[str, Any]) -> None:
    """Docker and Kubernetes write them for what nobody asked for; nothing is written and no folder is made."""
    found = parse(**given)
    assert found == Resources()
    assert cgroups_v1.controllers(found) == cgroups_v1.controllers(Resources())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"memory": {"kernel": 5}}, "memory.kernel: has no effect since Linux 5.16"),
    ({"memory": {"swappiness": 101}}, "memory.swappiness: must be between 0 and 100"),
    ({"memory": {"limits": 1}}, "memory.limits: unknown field"),
    ({"cpu": {"idle": 2}}, "cpu.idle: must be between 0 and 1"),
    ({"cpu": {"burst": -1}}, "cpu.burst: must be between 0"),
    ({"blockIO": {"weight": 9}}, "blockIO.weight: must be between 10 and 1000, not 9"),
    ({"blockIO": {"weightDevice": [{"weight": 9}]}}, "blockIO.weightDevice[0].weight: must be between 10 and 1000"),
    ({"blockIO": {"throttleReadBpsDevice": [{"rate": -1}]}}, "blockIO.throttleReadBpsDevice[0].rate: must be between"),
    ({"blockIO": {"throttleReadBpsDevice": [{"weight": 1}]}}, "throttleReadBpsDevice[0].weight: unknown field"),
    ({"hugepageLimits": [{"pageSize": "2mb", "limit": 1}]}, "hugepageLimits[0].pageSize: '2mb' must be a size"),
    ({"hugepageLimits": [{"pageSize": "../MB", "limit": 1}]}, "hugepageLimits[0].pageSize: '../MB' must be a size"),
    ({"hugepageLimits": [{"pageSize": "2MB"}]}, "hugepageLimits[0].limit: is required"),
    ({"network": {"classID": 2**32}}, "network.classID: must be between"),
    ({"network": {"priorities": [{"name": "a b"}]}}, "network.priorities[0].name: 'a b' is no name"),
    ({"rdma": {"mlx 4": {"hcaHandles": 1}}}, "rdma.mlx 4: is no name"),
    ({"rdma": {"mlx4_0": {"handles": 1}}}, "rdma.mlx4_0.handles: unknown field"),
    ({"unified": {"memory.high": 5}}, "unified[memory.high]: must be a string"),
    ({"unified": {"../memory.high": "5"}}, "unified[../memory.high]: must be a file of the cgroup's folder"),
    ({"unified": {"a/memory.high": "5"}}, "unified[a/memory.high]: must be a file of the cgroup's folder"),
    ({"unified": {"": "5"}}, "unified[]: must be a file of the cgroup's folder"),
    ({"unified": {"..": "5"}}, "unified[..]: must be a file of the cgroup's folder"),
    ({"unified": {"cgroup.procs": "1"}}, "unified[cgroup.procs]: is the runtime's own"),
    ({"unified": {"cgroup.subtree_control": "+io"}}, "unified[cgroup.subtree_control]: is the runtime's own"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_refusals_name_the_field(given: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidSpec) as caught:
        parse(**given)
    assert caught.value.message.startswith("linux.resources.")
    assert message in caught.value.message


def test_memory_and_processor_on_version_1() -> None:
    """Every field has its file; what is a value of its own is written even when it is 0."""
    memory = {"kernelTCP": 5, "swappiness": 0, "disableOOMKiller": True, "useHierarchy": True}
    cpu = {"burst": 0, "realtimeRuntime": 7, "realtimePeriod": 9, "idle": 0}
    assert triples(cgroups_v1.settings(parse(memory=memory, cpu=cpu))) == [
        ("memory.use_hierarchy", "1", "memory.useHierarchy"),
        ("memory.kmem.tcp.limit_in_bytes", "5", "memory.kernelTCP"),
        ("memory.swappiness", "0", "memory.swappiness"),
        ("memory.oom_control", "1", "memory.disableOOMKiller"),
        ("cpu.cfs_burst_us", "0", "cpu.burst"),
        ("cpu.rt_period_us", "9", "cpu.realtimePeriod"),
        ("cpu.rt_runtime_us", "7", "cpu.realtimeRuntime"),
        ("cpu.idle", "0", "cpu.idle"),
    ]


BLOCK_IO: dict[str, Any] = {
    "weight": 100,
    "weightDevice": [{"major": 8, "minor": 16, "weight": 1000}],
    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}, {"major": 8, "minor": 16, "rate": 5}],
    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2**64 - 1}],
    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}],
}


def test_block_io_on_version_1() -> None:
    """BFQ's names where the kernel has them; one line a device; leaf weights where a kernel still has those."""
    wanted = parse(blockIO=BLOCK_IO)
    assert "blkio" in cgroups_v1.controllers(wanted)
    written = triples(cgroups_v1.settings(wanted, only("blkio.bfq.weight")))
    assert written == [
        ("blkio.bfq.weight", "100", "blockIO.weight"),
        ("blkio.bfq.weight_device", "8:16 1000", "blockIO.weightDevice"),
        ("blkio.throttle.read_bps_device", "8:0 1000", "blockIO.throttleReadBpsDevice"),
        ("blkio.throttle.read_bps_device", "8:16 5", "blockIO.throttleReadBpsDevice"),
        ("blkio.throttle.write_bps_device", f"8:0 {2**64 - 1}", "blockIO.throttleWriteBpsDevice"),
        ("blkio.throttle.read_iops_device", "8:0 0", "blockIO.throttleReadIOPSDevice"),
        ("blkio.throttle.write_iops_device", "8:16 7", "blockIO.throttleWriteIOPSDevice"),
    ]
    leaf = parse(blockIO={"weight": 10, "leafWeight": 20, "weightDevice": [{"major": 1, "minor": 2, "leafWeight": 30}]})
    assert triples(cgroups_v1.settings(leaf, only())) == [
        ("blkio.weight", "10", "blockIO.weight"),
        ("blkio.leaf_weight", "20", "blockIO.leafWeight"),
        ("blkio.leaf_weight_device", "1:2 30", "blockIO.weightDevice"),
    ]


def test_block_io_on_version_2() -> None:
    """BFQ's own scale or the converted one; the rates of a device in one line, where 0 takes a limit away."""
    wanted = parse(blockIO=BLOCK_IO)
    assert "io" in cgroups_v2.controllers(wanted)
    rates = [
        ("io.max", f"8:0 rbps=1000 wbps={2**64 - 1} riops=max", "blockIO.throttleReadBpsDevice"),
        ("io.max", "8:16 rbps=5 wiops=7", "blockIO.throttleReadBpsDevice"),
    ]
    assert triples(cgroups_v2.settings(wanted, only("io.bfq.weight"))) == [
        ("io.bfq.weight", "100", "blockIO.weight"),
        ("io.bfq.weight", "8:16 1000", "blockIO.weightDevice"),
        *rates,
    ]
    assert triples(cgroups_v2.settings(wanted, only())) == [
        ("io.weight", "910", "blockIO.weight"),
        ("io.weight", "8:16 10000", "blockIO.weightDevice"),
        *rates,
    ]


@pytest.mark.parametrize(("weight", "converted"), [(10, 1), (100, 910), (500, 4950), (1000, 10000)])
def test_block_io_weight_as_io_weight(weight: int, converted: int) -> None:
    """The formula of crun and runc at its ends and between."""
    assert cgroups_v2.io_weight(weight) == converted


def test_huge_pages_network_and_rdma() -> None:
    """Reservations too, where the kernel counts them; 0 bytes is a limit."""
    wanted = parse(
        hugepageLimits=[{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 2**30}],
        network={"classID": 0x100001, "priorities": [{"name": "lo", "priority": 3}]},
        rdma={"mlx4_0": {"hcaHandles": 2}, "mlx4_1": {"hcaObjects": 0}},
    )
    assert {"hugetlb", "net_cls", "net_prio", "rdma"} <= set(cgroups_v1.controllers(wanted))
    assert triples(cgroups_v1.settings(wanted, only("hugetlb.2MB.rsvd.limit_in_bytes"))) == [
        ("hugetlb.2MB.limit_in_bytes", "0", "hugepageLimits[2MB]"),
        ("hugetlb.2MB.rsvd.limit_in_bytes", "0", "hugepageLimits[2MB]"),
        ("hugetlb.1GB.limit_in_bytes", "1073741824", "hugepageLimits[1GB]"),
        ("net_cls.classid", "1048577", "network.classID"),
        ("net_prio.ifpriomap", "lo 3", "network.priorities[lo]"),
        ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max", "rdma[mlx4_0]"),
        ("rdma.max", "mlx4_1 hca_handle=max hca_object=0", "rdma[mlx4_1]"),
    ]
    on_2 = parse(hugepageLimits=[{"pageSize": "2MB", "limit": 4096}], rdma={"a": {"hcaHandles": 1}})
    assert {"hugetlb", "rdma"} <= set(cgroups_v2.controllers(on_2))
    assert triples(cgroups_v2.settings(on_2, only("hugetlb.2MB.rsvd.max"))) == [
        ("hugetlb.2MB.max", "4096", "hugepageLimits[2MB]"),
        ("hugetlb.2MB.rsvd.max", "4096", "hugepageLimits[2MB]"),
        ("rdma.max", "a hca_handle=1 hca_object=max", "rdma[a]"),
    ]


def test_unified_comes_last_on_version_2() -> None:
    """It has the last word, and its controllers reach the group."""
    unified = {
        "memory.high": "100",
        "hugetlb.2MB.max": "0",
        "cgroup.max.depth": "3",
        "io.max": "8:0 rbps=1\n8:1 rbps=2",
    }
    wanted = parse(unified=unified, memory={"limit": 200, "reservation": -1}, cpu={"burst": 5, "idle": 1})
    assert cgroups_v2.controllers(wanted) == ("cpu", "memory", "pids", "hugetlb", "io")
    assert triples(cgroups_v2.settings(wanted)) == [
        ("memory.max", "200", "memory.limit"),
        ("memory.low", "max", "memory.reservation"),
        ("cpu.max.burst", "5", "cpu.burst"),
        ("cpu.idle", "1", "cpu.idle"),
        *((file, value, f"unified[{file}]") for file, value in unified.items()),
    ]


ONLY_V1: list[tuple[dict[str, Any], str]] = [
    ({"memory": {"swappiness": 0}}, "memory.swappiness"),
    ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller"),
    ({"memory": {"kernelTCP": 1}}, "memory.kernelTCP"),
    ({"cpu": {"realtimeRuntime": 1}}, "cpu.realtimeRuntime"),
    ({"cpu": {"realtimePeriod": 1}}, "cpu.realtimePeriod"),
    ({"blockIO": {"leafWeight": 10}}, "blockIO.leafWeight"),
    ({"blockIO": {"weightDevice": [{"leafWeight": 10}]}}, "blockIO.leafWeight"),
    ({"network": {"classID": 1}}, "network.classID"),
    ({"network": {"priorities": [{"name": "lo", "priority": 1}]}}, "network.priorities"),
]


@pytest.mark.parametrize(("given", "field"), ONLY_V1, ids=[f"{field}={given}" for given, field in ONLY_V1])
def test_what_only_version_1_has_is_refused_on_version_2(given: dict[str, Any], field: str) -> None:
    """By its name, with the remedy; version 1 takes the same."""
    assert cgroups_v1.settings(parse(**given), only())
    with pytest.raises(errors.InvalidSpec, match=rf"^linux\.resources\.{field}: .*this machine has v2; remove it: \w"):
        cgroups_v2.settings(parse(**given))


def test_unified_is_refused_on_version_1() -> None:
    with pytest.raises(errors.InvalidSpec, match=r"^linux\.resources\.unified\[memory\.high\]: .*this machine has v1"):
        cgroups_v1.settings(parse(unified={"memory.high": "5"}))


@pytest.mark.parametrize(
    "given", [{"pids": {"limit": 5}}, {"unified": {"memory.high": "5"}}, {"devices": [{"allow": False}]}]
)
def test_without_a_group_every_limit_is_refused(given: dict[str, Any]) -> None:
    """By its name; without limits nothing is made, killed, found or removed."""
    group = cgroups.Cgroup.plan(cgroups.Layout(), "", parse(**given))
    with pytest.raises(errors.InvalidSpec, match=r"^linux\.resources\.[a-z\[\].]+: needs a cgroup"):
        group.apply(parse(**given))
    group.apply(Resources())
    group.kill_all()
    group.delete()
    assert (group.pids(), group.doors(), cgroups.visible_folders(group), group.is_frozen()) == ([], [], (), False)
    assert group.stats().memory_bytes == 0
    with pytest.raises(errors.SetupFailed, match="has no freezer"):
        group.freeze()


def test_block_io_is_counted_for_whoever_asks() -> None:
    """A further folder costs a start time, so it is there only when somebody reads what it counts."""
    assert "blkio" not in cgroups_v1.controllers(Resources())
    assert "blkio" in cgroups_v1.controllers(Resources(counts_io=True))
    assert "io" not in cgroups_v2.controllers(Resources())
    assert "io" in cgroups_v2.controllers(Resources(counts_io=True))

"""No field of the specification is ignored: each is read into what the runtime executes, or refused by its full name.

The table is the specification's Linux configuration (version 1.2, and what 1.3 adds), field by field.
"""

import ast
import copy
import functools
import inspect
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, errors, mountoptions, resources, spec
from runtime.seccomp import profile
from runtime.spec import devices, hooks, mappings, mounts, namespaces, process, timeoffsets, treatment
from tests.unit.runtime.test_spec import put

RUNTIME = Path(spec.__file__).parents[1]
Case = tuple[str, Any, dict[str, Any]]

ID_MAPS = [{"containerID": 0, "hostID": 1000, "size": 10}]
USERS = {"linux.namespaces": [{"type": "mount"}, {"type": "user"}], "linux.sysctl": None}
MAPPED = {**USERS, "linux.uidMappings": ID_MAPS, "linux.gidMappings": ID_MAPS}
TIME = {"linux.namespaces": [{"type": "mount"}, {"type": "time"}], "linux.sysctl": None, "hostname": None}
BIND = {"mounts.0": {"destination": "/x", "source": "/y", "options": ["bind"]}}
TERMINAL = {"process.terminal": True}
FIFO = {"process.scheduler": {"policy": "SCHED_FIFO", "priority": 1}}
BATCH = {"process.scheduler": {"policy": "SCHED_BATCH"}}
DEADLINE = {"process.scheduler": {"policy": "SCHED_DEADLINE"}}
BEST_EFFORT = {"process.ioPriority": {"class": "IOPRIO_CLASS_BE"}}
DEVICE = {"linux.devices": [{"path": "/dev/x", "type": "c"}]}
FILTER = {
    "linux.seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG"}]}
}
NOTIFY = {"linux.seccomp": {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/x"}}
HOOK = {"path": "/x", "args": ["x"]}
BIND_NODES = {"linux.memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}
LINE = {"major": 8, "minor": 0}

PROCESS: list[Case] = [
    ("process.terminal", True, {}),
    ("process.consoleSize.height", 30, {**TERMINAL, "process.consoleSize": {"width": 80, "height": 1}}),
    ("process.consoleSize.width", 30, {**TERMINAL, "process.consoleSize": {"width": 1, "height": 80}}),
    ("process.cwd", "/tmp", {}),
    ("process.env", ["A=b"], {}),
    ("process.args", ["other"], {}),
    ("process.commandLine", "other", {}),
    ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}], {}),
    ("process.apparmorProfile", "x", {}),
    *((f"process.capabilities.{name}", ["CAP_KILL"], {}) for name in ("bounding", "effective", "permitted")),
    *((f"process.capabilities.{name}", ["CAP_KILL"], {}) for name in ("inheritable", "ambient")),
    ("process.noNewPrivileges", False, {}),
    ("process.oomScoreAdj", 5, {}),
    ("process.scheduler.policy", "SCHED_IDLE", BATCH),
    ("process.scheduler.nice", 5, BATCH),
    ("process.scheduler.priority", 5, FIFO),
    *((f"process.scheduler.{name}", 5, DEADLINE) for name in ("runtime", "deadline", "period")),
    *(("process.scheduler.flags", [word], BATCH) for word in treatment.SCHEDULER_FLAGS),
    ("process.selinuxLabel", "x", {}),
    ("process.ioPriority.class", "IOPRIO_CLASS_IDLE", BEST_EFFORT),
    ("process.ioPriority.priority", 5, BEST_EFFORT),
    ("process.execCPUAffinity.initial", "0-1", {}),
    ("process.execCPUAffinity.final", "0", {}),
    ("process.user.uid", 5, {}),
    ("process.user.gid", 5, {}),
    ("process.user.umask", 0o77, {}),
    ("process.user.additionalGids", [5], {}),
    ("process.user.username", "x", {}),
]

MOUNTS: list[Case] = [
    ("root.path", "/elsewhere", {}),
    ("root.readonly", True, {}),
    ("mounts.0.destination", "/elsewhere", {}),
    ("mounts.0.type", "tmpfs", {}),
    ("mounts.0.source", "x", {}),
    ("mounts.0.options", ["ro"], {}),
    ("mounts.0.uidMappings", ID_MAPS, {**BIND, "mounts.0.gidMappings": ID_MAPS}),
    ("mounts.0.gidMappings", ID_MAPS, {**BIND, "mounts.0.uidMappings": ID_MAPS}),
]

LINUX: list[Case] = [
    *(
        ("linux.namespaces", [{"type": kind}, {"type": "mount"}], {"linux.sysctl": None, "hostname": None})
        for kind in ("cgroup", "ipc", "network", "pid", "uts", "time")
    ),
    ("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "/x"}], {"linux.sysctl": None, "hostname": None}),
    ("linux.uidMappings", ID_MAPS, {**USERS, "linux.gidMappings": ID_MAPS, "hostname": None}),
    ("linux.gidMappings", ID_MAPS, {**USERS, "linux.uidMappings": ID_MAPS, "hostname": None}),
    *((f"linux.timeOffsets.{clock}.{name}", 5, TIME) for clock in timeoffsets.CLOCKS for name in ("secs", "nanosecs")),
    ("linux.devices.0.path", "/dev/y", DEVICE),
    ("linux.devices.0.type", "b", DEVICE),
    ("linux.devices.0.fileMode", 0o600, DEVICE),
    *((f"linux.devices.0.{name}", 5, DEVICE) for name in ("major", "minor", "uid", "gid")),
    ("linux.netDevices", {"eth0": {}}, {}),
    ("linux.netDevices.eth0.name", "eth1", {}),
    ("linux.cgroupsPath", "/elsewhere", {}),
    ("linux.sysctl", {"net.ipv4.ip_forward": "1"}, {}),
    ("linux.rootfsPropagation", "slave", {}),
    ("linux.maskedPaths", ["/x"], {}),
    ("linux.readonlyPaths", ["/x"], {}),
    ("linux.mountLabel", "x", {}),
    ("linux.personality.domain", "LINUX32", {}),
    ("linux.personality.flags", ["x"], {"linux.personality": {"domain": "LINUX"}}),
    ("linux.memoryPolicy.mode", "MPOL_INTERLEAVE", BIND_NODES),
    ("linux.memoryPolicy.nodes", "1", BIND_NODES),
    ("linux.memoryPolicy.flags", ["MPOL_F_STATIC_NODES"], BIND_NODES),
    *((f"linux.intelRdt.{name}", "x", {}) for name in ("closID", "l3CacheSchema", "memBwSchema")),
    ("linux.intelRdt.schemata", ["x"], {}),
    *((f"linux.intelRdt.{name}", True, {}) for name in ("enableMonitoring", "enableCMT", "enableMBM")),
    ("linux.seccomp.defaultAction", "SCMP_ACT_KILL", FILTER),
    ("linux.seccomp.defaultErrnoRet", 5, FILTER),
    ("linux.seccomp.architectures", ["SCMP_ARCH_X86_64"], FILTER),
    ("linux.seccomp.flags", ["SECCOMP_FILTER_FLAG_LOG"], FILTER),
    ("linux.seccomp.listenerPath", "/run/y", NOTIFY),
    ("linux.seccomp.listenerMetadata", "x", NOTIFY),
    ("linux.seccomp.syscalls.0.names", ["write"], FILTER),
    ("linux.seccomp.syscalls.0.action", "SCMP_ACT_ALLOW", FILTER),
    ("linux.seccomp.syscalls.0.errnoRet", 5, {**FILTER, "linux.seccomp.syscalls.0.action": "SCMP_ACT_ERRNO"}),
    ("linux.seccomp.syscalls.0.args", [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}], FILTER),
]

RESOURCES: list[Case] = [
    ("devices", [{"allow": True}], {}),
    *((f"memory.{name}", 1 << 30, {}) for name in ("limit", "reservation", "swap", "kernel", "kernelTCP")),
    ("memory.swappiness", 50, {}),
    *((f"memory.{name}", True, {}) for name in ("disableOOMKiller", "useHierarchy", "checkBeforeUpdate")),
    *(
        (f"cpu.{name}", 2000, {})
        for name in ("shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod")
    ),
    *((f"cpu.{name}", "0", {}) for name in ("cpus", "mems")),
    ("cpu.idle", 1, {}),
    ("pids.limit", 5, {}),
    *((f"blockIO.{name}", 500, {}) for name in ("weight", "leafWeight")),
    ("blockIO.weightDevice", [{**LINE, "weight": 500}], {}),
    *((f"blockIO.throttle{name}Device", [{**LINE, "rate": 5}], {}) for name in ("ReadBps", "WriteBps")),
    *((f"blockIO.throttle{name}Device", [{**LINE, "rate": 5}], {}) for name in ("ReadIOPS", "WriteIOPS")),
    ("hugepageLimits", [{"pageSize": "2MB", "limit": 0}], {}),
    ("network.classID", 5, {}),
    ("network.priorities", [{"name": "lo", "priority": 5}], {}),
    ("rdma.mlx5_1.hcaHandles", 5, {}),
    ("rdma.mlx5_1.hcaObjects", 5, {}),
    ("unified", {"memory.high": "1"}, {}),
]

OTHERS: list[Case] = [
    ("ociVersion", "2.0.0", {}),
    ("hostname", "other", {}),
    ("domainname", "other", {}),
    ("annotations", {"a": "b"}, {}),
    *((f"hooks.{name}", [HOOK], {}) for name in hooks.NAMES),
    ("hooks.poststop.0.path", "/y", {"hooks": {"poststop": [HOOK]}}),
    ("hooks.poststop.0.args", ["y"], {"hooks": {"poststop": [HOOK]}}),
    ("hooks.poststop.0.env", ["A=b"], {"hooks": {"poststop": [HOOK]}}),
    ("hooks.poststop.0.timeout", 5, {"hooks": {"poststop": [HOOK]}}),
    *((platform, {"x": 1}, {}) for platform in ("solaris", "windows", "vm", "zos", "freebsd")),
]

CASES = [
    *PROCESS,
    *MOUNTS,
    *LINUX,
    *((f"linux.resources.{path}", value, also) for path, value, also in RESOURCES),
    *OTHERS,
]

REFUSED = {
    "ociVersion",  # the value, not the field
    "process.commandLine",  # of Windows
    *("solaris", "windows", "vm", "zos", "freebsd"),
    "linux.personality.flags",  # the specification has no word for them yet
    *(path for path, _, _ in LINUX if path.startswith("linux.intelRdt.")),
}


def base(also: dict[str, Any]) -> dict[str, Any]:
    config = defaults.config(["true"], cgroups_path="/orch/n1/c1", hostname="web-1")
    config["process"]["rlimits"] = []
    for path, value in also.items():
        put(path, copy.deepcopy(value))(config)
    return config


def read(config: dict[str, Any]) -> spec.Spec | str:
    """What is read, or why not."""
    try:
        return spec.parse(config)
    except errors.InvalidSpec as error:
        return error.message


@pytest.mark.parametrize(("path", "value", "also"), CASES, ids=[path for path, _, _ in CASES])
def test_no_field_is_ignored(path: str, value: Any, also: dict[str, Any]) -> None:
    """With the field, another configuration is read than without it, or the refusal begins with its name."""
    config = base(also)
    without = read(copy.deepcopy(config))
    put(path, value)(config)
    found = read(config)
    if isinstance(found, spec.Spec):
        assert found != without, f"{path} makes no difference"
        assert path not in REFUSED, f"{path} is executed now: take it from the list"
        return
    named = _written(path)
    assert any(found.startswith((f"{name}: ", f"{name}[")) for name in named), found
    assert path in REFUSED or path.startswith("linux.resources."), found


def _written(path: str) -> list[str]:
    """The field as messages have it, or an object above it that is refused as a whole."""
    words: list[str] = []
    for part in path.split("."):
        if part.isdigit():
            words[-1] += f"[{part}]"
        else:
            words.append(part)
    return [".".join(words[:length]) for length in range(len(words), min(len(words), 2) - 1, -1)]


READ: list[type] = [
    spec.Spec,
    process.Process,
    process.User,
    process.Rlimit,
    mounts.Mount,
    mountoptions.MountOptions,
    mappings.IdMaps,
    mappings.IdRange,
    namespaces.Namespace,
    devices.Device,
    hooks.Hook,
    timeoffsets.TimeOffset,
    treatment.IoPriority,
    treatment.Scheduler,
    treatment.CpuAffinity,
    treatment.MemoryPolicy,
    resources.Resources,
    profile.Profile,
]


@functools.cache
def _attributes(path: Path) -> frozenset[str]:
    """The names that a module takes from objects."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load))


@pytest.mark.parametrize("kind", READ)
def test_what_is_read_is_used(kind: type) -> None:
    """Every field of the values that come out of the configuration is used outside of the module that reads it."""
    reader = Path(inspect.getfile(kind))
    used = frozenset[str]().union(*(_attributes(path) for path in RUNTIME.rglob("*.py") if path != reader))
    assert [name for name in kind.__slots__ if name not in used] == []

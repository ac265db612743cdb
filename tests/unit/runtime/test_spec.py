"""The configuration is read strictly: what is not done is refused by its full path."""

import copy
import resource
from collections.abc import Callable
from typing import Any

import pytest

from runtime import defaults, errors, spec


def base() -> dict[str, Any]:
    return defaults.config(["sh", "-c", "true"], cgroups_path="/orch/n1/c1", hostname="web-1")


def test_default_configuration_is_read() -> None:
    """The defaults pass their own reader, with Docker's 14 capabilities and no inheritable ones."""
    found = spec.parse(base())
    assert found.process.args == ("sh", "-c", "true")
    assert found.process.no_new_privileges
    assert found.process.capabilities is not None
    assert found.process.capabilities.effective == 0xA80425FB
    assert found.process.capabilities.inheritable == found.process.capabilities.ambient == 0
    assert found.resources.pids_limit == 4096
    assert {namespace.kind for namespace in found.namespaces} == set(defaults.NAMESPACES)
    assert found.makes("pid")


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the configuration at a dotted path."""

    def change(config: dict[str, Any]) -> None:
        *above, last = path.split(".")
        for name in above:
            config = config[int(name)] if isinstance(config, list) else config.setdefault(name, {})
        if isinstance(config, list):
            config[int(last)] = value
        else:
            config[last] = value

    return change


REFUSED = [
    ("ociVersion", "2.0.0", "ociVersion: version '2.0.0'"),
    ("hooks", {"poststart": [{"path": "x"}]}, "hooks.poststart[0].path: 'x' must be an absolute path"),
    ("hooks", {"poststart": [{}]}, "hooks.poststart[0].path: is required"),
    ("hooks", {"prestart": [{"path": "/x", "timeout": 0}]}, "hooks.prestart[0].timeout: must be between 1"),
    ("hooks", {"prestart": [{"path": "/x", "env": ["=1"]}]}, "hooks.prestart[0].env[0]: '=1' must be NAME=value"),
    ("hooks", {"postStop": [{"path": "/x"}]}, "hooks.postStop: unknown field"),
    ("hostnam", "x", "hostnam: unknown field"),
    ("hostname", "a b", "hostname: 'a b'"),
    ("hostname", "a" * 65, "hostname: 'aaa"),
    ("domainname", "a" * 65, "is above the 64 bytes that the kernel takes"),
    ("process.scheduler", {"policy": "SCHED_ISO"}, "process.scheduler.policy: 'SCHED_ISO' is not known; use one of"),
    ("process.scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.priority: must be 1 to 99"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "priority": 1}, "process.scheduler.priority: must be 1 to 99"),
    ("process.scheduler", {"policy": "SCHED_IDLE", "nice": 1}, "process.scheduler.nice: is for SCHED_BATCH and"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice: must be between -20 and 19"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "period": 1}, "process.scheduler.period: is for SCHED_DEADLINE"),
    (
        "process.scheduler",
        {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"]},
        "process.scheduler.flags[0]: SCHED_FLAG_UTIL_CLAMP_MIN needs a value",
    ),
    ("process.scheduler", {"policy": "SCHED_OTHER", "flags": ["X"]}, "process.scheduler.flags[0]: 'X' is not known"),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_NONE"}, "process.ioPriority.class: 'IOPRIO_CLASS_NONE' is not"),
    (
        "process.ioPriority",
        {"class": "IOPRIO_CLASS_BE", "priority": 8},
        "process.ioPriority.priority: must be between 0",
    ),
    ("process.execCPUAffinity", {"initial": "0-"}, "process.execCPUAffinity.initial: '0-' must be numbers and ranges"),
    ("process.execCPUAffinity", {"final": "3-1"}, "process.execCPUAffinity.final: '3-1' must be a rising range"),
    ("process.execCPUAffinity", {"final": "0-99999"}, "process.execCPUAffinity.final: '0-99999' must be numbers"),
    ("linux.personality", {"domain": "BSD"}, "linux.personality.domain: 'BSD' is not known; use one of LINUX, LINUX32"),
    ("linux.personality", {"domain": "LINUX", "flags": ["x"]}, "linux.personality.flags: the specification names"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes: is required with MPOL_BIND"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "linux.memoryPolicy.nodes: must be left out"),
    ("linux.memoryPolicy", {"mode": "X"}, "linux.memoryPolicy.mode: 'X' is not known"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "flags": ["X"]}, "linux.memoryPolicy.flags[0]: 'X' is not known"),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "linux.timeOffsets: needs a new time namespace"),
    ("linux.timeOffsets", {"boottime": {"nanosecs": 10**9}}, "linux.timeOffsets.boottime.nanosecs: must be between 0"),
    ("linux.timeOffsets", {"realtime": {"secs": 1}}, "linux.timeOffsets.realtime: unknown field"),
    ("linux.netDevices", {"a/b": {}}, "linux.netDevices.a/b: 'a/b' must be a name of 1 to 15 characters"),
    ("linux.netDevices", {"e0": {"name": "eth%d"}}, "linux.netDevices.e0.name: 'eth%d' must be a name"),
    ("linux.netDevices", {"e0": {"name": "e1"}, "e1": {}}, "another device is to be called e1, too"),
    ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt: this field is not supported"),
    ("process.args", [], "process.args: needs at least the program"),
    ("process.args", "sh", "process.args: must be a list, not a string"),
    ("process.args", ["a\0b"], "process.args[0]: must be a string without NUL"),
    ("process.env", ["NOVALUE"], "process.env[0]: 'NOVALUE' must be NAME=value"),
    ("process.cwd", "relative", "process.cwd: 'relative' must be an absolute path"),
    ("process.user.uid", 2**32 - 1, "process.user.uid: must be between 0 and 4294967294"),
    ("process.user.uid", -1, "process.user.uid: must be between 0"),
    ("process.user.uid", True, "process.user.uid: must be an integer, not true or false"),
    ("process.user.name", "x", "process.user.name: unknown field"),
    ("process.capabilities.bounding", ["CAP_NOPE"], "process.capabilities.bounding: 'CAP_NOPE'"),
    ("process.consoleSize", {"height": 1, "width": 2}, "process.consoleSize: needs process.terminal"),
    ("process.rlimits", [{"type": "NOFILE", "soft": 1, "hard": 1}], "process.rlimits[0].type: 'NOFILE'"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "process.rlimits[0].soft: 2 is above"),
    ("process.oomScoreAdj", 2000, "process.oomScoreAdj: must be between -1000 and 1000"),
    ("mounts.0.destination", "proc", "mounts[0].destination: 'proc' must be an absolute path"),
    ("mounts.0.destination", "/", "mounts[0].destination: the root itself"),
    ("mounts.0.options", ["tmpcopyup"], "mounts[0].options: 'tmpcopyup' is for a tmpfs"),
    ("mounts.1.options", ["tmpcopyup"], "mounts[1].options: 'tmpcopyup' is not for /dev"),
    ("mounts.0.options", ["remount"], "mounts[0].options: 'remount' is not supported: a mount in a configuration"),
    ("mounts.0.options", ["mand"], "mounts[0].options: 'mand' is not supported: mandatory locks are gone"),
    ("mounts.0.options", ["src-nofollow"], "mounts[0].options: 'src-nofollow' is for a bind mount"),
    ("mounts.0.options", ["copy-symlink"], "mounts[0].options: 'copy-symlink' is for a bind mount"),
    ("mounts.0", {"destination": "/x", "source": "/y", "options": ["bind", "sync"]}, "the file system, which is the"),
    ("mounts.0", {"destination": "/x"}, "mounts[0].type: is required"),
    ("mounts.0", {"destination": "/x", "source": "y", "options": ["bind"]}, "mounts[0].source: 'y'"),
    ("mounts.0", {"destination": "/x", "source": "/y", "options": ["bind", "size=1"]}, "'size=1' is not an option"),
    ("linux.seccomp.defaultAction", "ALLOW", "linux.seccomp.defaultAction: 'ALLOW' is not known"),
    ("linux.namespaces", [{"type": "net"}], "linux.namespaces[0].type: 'net' is no namespace"),
    ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}], "linux.namespaces[1].type: pid is there twice"),
    ("linux.namespaces", [{"type": "pid"}], "linux.namespaces: a new mount namespace is required"),
    ("linux.cgroupsPath", "a/../b", "linux.cgroupsPath: 'a/../b' must not hold '..'"),
    ("linux.cgroupsPath", ".", "linux.cgroupsPath: '.' must be a group of the container's own"),
    ("linux.cgroupsPath", "//orch/", "linux.cgroupsPath: '//orch/' must be a group of the container's own"),
    ("linux.cgroupsPath", "system.slice:docker:abc", "is systemd's form, slice:prefix:name; give --systemd-cgroup"),
    ("linux.cgroupsPath", "/a/../..", "linux.cgroupsPath: '/a/../..'"),
    ("linux.cgroupsPath", "/", "linux.cgroupsPath: '/'"),
    ("linux.resources.cpu.period", 1, "linux.resources.cpu.period: must be between 1000"),
    ("linux.resources.devices", [{"allow": True, "type": "x"}], "linux.resources.devices[0].type: 'x'"),
    ("linux.resources.devices", [{"allow": True, "access": "x"}], "linux.resources.devices[0].access: 'x'"),
    ("linux.devices", [{"path": "/etc/x", "type": "c"}], "linux.devices[0].path: '/etc/x' must be below /dev"),
    ("linux.sysctl", {"vm.swappiness": "1"}, "linux.sysctl[vm.swappiness]: is not separate"),
    ("linux.sysctl", {"net/../kernel/panic": "1"}, "linux.sysctl[net/../kernel/panic]: is not separate"),
    ("linux.sysctl", {"kernel.shmmax": 1}, "linux.sysctl[kernel.shmmax]: must be a string"),
    ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]: 'proc' must be an absolute path"),
    ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation: 'sideways' is not a propagation"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), REFUSED, ids=[f"{path}={value}"[:60] for path, value, _ in REFUSED]
)
def test_refusal_names_the_field(path: str, value: Any, message: str) -> None:
    """The message starts with the full path and says what is wrong."""
    config = base()
    put(path, value)(config)
    with pytest.raises(errors.InvalidSpec) as caught:
        spec.parse(config)
    assert message in caught.value.message


def test_null_is_absent() -> None:
    """Go programs write null for what is empty."""
    config = base() | {"hooks": None, "annotations": None, "domainname": None}
    config["linux"]["seccomp"] = None
    config["process"]["rlimits"] = None
    assert spec.parse(config).process.rlimits == ()


def test_sysctl_without_its_namespace_would_change_the_host() -> None:
    """A parameter is allowed only with the namespace that holds it."""
    config = base()
    config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "uts"}]
    config["linux"]["sysctl"] = {"kernel.msgmax": "1"}
    with pytest.raises(errors.InvalidSpec, match="needs a namespace of type ipc"):
        spec.parse(config)


def test_parsing_changes_nothing() -> None:
    """The caller's configuration stays as it was."""
    config = base()
    before = copy.deepcopy(config)
    spec.parse(config)
    assert config == before


def test_unlimited_rlimit() -> None:
    """The specification's largest number is infinity."""
    config = base()
    config["process"]["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]
    assert spec.parse(config).process.rlimits == (
        spec.Rlimit(name="RLIMIT_CORE", resource=resource.RLIMIT_CORE, soft=0, hard=resource.RLIM_INFINITY),
    )


def test_overlay() -> None:
    """Layers are absolute folders, and there is at least one."""
    found = spec.parse_overlay({"lower": ["/a", "/b"], "upper": "/u", "work": "/w"})
    assert found.lower == ("/a", "/b")
    with pytest.raises(errors.InvalidSpec, match=r"overlay.lower: needs at least one"):
        spec.parse_overlay({"lower": [], "upper": "/u", "work": "/w"})
    with pytest.raises(errors.InvalidSpec, match=r"overlay.upper: 'u' must be an absolute path"):
        spec.parse_overlay({"lower": ["/a"], "upper": "u", "work": "/w"})
    with pytest.raises(errors.InvalidSpec, match=r"overlay.volatile: unknown field"):
        spec.parse_overlay({"lower": ["/a"], "upper": "/u", "work": "/w", "volatile": True})


def test_what_a_reaper_would_not_pass_on_is_refused() -> None:
    """The program is the reaper's child, so what a fork does not inherit would be ignored."""
    for process, field in (
        ({"scheduler": {"policy": "SCHED_DEADLINE"}}, "scheduler"),
        ({"apparmorProfile": "x"}, "apparmorProfile"),
        ({"selinuxLabel": "x"}, "selinuxLabel"),
    ):
        config = base()
        config["annotations"] = {"orch.init": "true"}
        config["process"].update(process)
        with pytest.raises(errors.InvalidSpec, match=rf"process\.{field}: .*orch\.init"):
            spec.parse(config)


def test_network_devices_need_a_namespace_of_the_container() -> None:
    """Or they would be moved from the host to the host."""
    config = base()
    config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "uts"}]
    config["linux"]["sysctl"] = {}
    config["linux"]["netDevices"] = {"eth0": {}}
    with pytest.raises(errors.InvalidSpec, match=r"linux\.netDevices: needs a network namespace"):
        spec.parse(config)

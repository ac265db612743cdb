"""The configuration of a container that asked for nothing special: Docker's default profile, and a little less.

`config` returns an OCI `config.json` as a dict that the caller may change before it is used.
"""

import copy
from collections.abc import Sequence
from typing import Any, Final

from runtime import seccompprofile
from runtime.lookup import DEFAULT_PATH

PIDS_LIMIT: Final = 4096

CAPABILITIES: Final = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
        "KILL AUDIT_WRITE"
    ).split()
)
MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES: Final = ("pid", "mount", "network", "uts", "ipc", "cgroup")
SYSCTL: Final = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}

_KERNEL: Final = ["nosuid", "noexec", "nodev"]
_MOUNTS: Final[list[dict[str, Any]]] = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": _KERNEL},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_KERNEL, "ro"]},
    {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", *_KERNEL]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _KERNEL},
    {
        "destination": "/dev/shm",  # noqa: S108 - inside the container
        "type": "tmpfs",
        "source": "shm",
        "options": [*_KERNEL, "mode=1777", "size=67108864"],
    },
]
_DEVICE_RULES: Final[list[dict[str, Any]]] = [
    {"allow": False, "access": "rwm"},
    # Making a node is harmless where it cannot be opened, and package managers do it.
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
]


def config(args: Sequence[str], *, cgroups_path: str, hostname: str = "") -> dict[str, Any]:
    """The default configuration for these arguments."""
    capabilities = list(CAPABILITIES)
    made: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "args": list(args),
            "env": [f"PATH={DEFAULT_PATH}"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": "", "readonly": False},
        "mounts": _MOUNTS,
        "linux": {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "cgroupsPath": cgroups_path,
            "resources": {"pids": {"limit": PIDS_LIMIT}, "devices": _DEVICE_RULES},
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "sysctl": dict(SYSCTL),
            "seccomp": seccompprofile.default(CAPABILITIES),
        },
    }
    if hostname:
        made["hostname"] = hostname
    return copy.deepcopy(made)


def give_user_namespace(config: dict[str, Any], *, first_id: int, size: int = 65536, path: str = "") -> None:
    """Change a configuration: a user namespace whose ids from 0 on are the host's from `first_id` on.

    With a path it is one that is there, to which the container's network namespace then belongs as well.
    """
    linux = config["linux"]
    wanted = {"type": "user", "path": path} if path else {"type": "user"}
    linux["namespaces"] = [*linux["namespaces"], wanted]
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": first_id, "size": size}]
    if "net.ipv4.ping_group_range" in linux.get("sysctl", {}):
        # In the ids of whoever writes it, which has no others.
        linux["sysctl"] = {**linux["sysctl"], "net.ipv4.ping_group_range": f"0 {size - 1}"}

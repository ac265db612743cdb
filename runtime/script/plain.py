"""Which containers are plain: all of their first process's set-up can be decided beforehand, and written as a script.

Others are made by `firstprocess`, which can do anything. Most people's containers are plain: without hooks, terminal,
reaper, agent for their system calls, or anything unusual that the kernel should do to them. One rule: what is not known
here by name makes a container unusual, so a field that somebody adds is never left out of a script by mistake.
"""

import os
from typing import Any, Final

from runtime import mountoptions, values
from runtime.rootfs import is_devices
from runtime.script import machine
from runtime.spec import Hooks, Mount, Process, Spec

_KNOWN: Final[dict[type, frozenset[str]]] = {
    Spec: frozenset(
        "process root_path root_readonly root_nodev hostname domainname mounts namespaces cgroups_path resources "
        "devices masked_paths readonly_paths sysctl annotations seccomp hooks id_maps".split()
    ),
    Process: frozenset(
        "args env cwd user terminal console_size capabilities no_new_privileges rlimits oom_score_adj "
        "exec_affinity".split()
    ),
    mountoptions.MountOptions: frozenset(
        "bind recursive_bind add remove add_recursive remove_recursive propagation propagation_recursive idmap "
        "idmap_recursive data".split()
    ),
}
_KINDS: Final = frozenset({"cgroup", "ipc", "mount", "network", "pid", "user", "uts"})


def _unknown(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """The fields that a script leaves alone, with what they are when nothing is asked for."""
    found = values.defaults(kind)
    assert set(kind.__slots__) - set(found) <= _KNOWN[kind], f"{kind.__name__}: a field that scripts must do"
    return tuple(each for each in found.items() if each[0] not in _KNOWN[kind])


_UNKNOWN: Final = {kind: _unknown(kind) for kind in _KNOWN}


def why_not(spec: Spec, *, started: bool) -> str:
    """Why a container is not plain, or "" when it is."""
    joined = {namespace.kind for namespace in spec.namespaces if namespace.path}
    reasons = (
        (not machine.SUPPORTED, "there is no machine code for this processor"),
        (not started, "it is started later"),
        (spec.process.terminal, "it has a terminal"),
        (spec.init, "it has a reaper"),
        (spec.hooks != Hooks(), "hooks are executed while it is made, or when that fails"),
        ("pid" in joined, "it joins a pid namespace"),
        (any(each.kind not in _KINDS for each in spec.namespaces), "it has a namespace of an unusual kind"),
        (spec.seccomp is not None and spec.seccomp.notifies, "its filter has an agent"),
        (not any(is_devices(mount) for mount in spec.mounts), "it has no /dev of its own"),
    )
    return next((reason for holds, reason in reasons if holds), "") or _unusual(spec) or _unusual_place(spec)


def _unusual(spec: Spec) -> str:
    """A field of whatever part that says something which is not known here."""
    for part in (spec, spec.process, *(mount.options for mount in spec.mounts)):
        for name, nothing in _UNKNOWN[type(part)]:
            if getattr(part, name) != nothing:
                return f"it has a {name}"
    return ""


def _unusual_place(spec: Spec) -> str:
    """Something that lies below a mount in which a place for it would have to be made, or looked up."""
    for number, mount in enumerate(spec.mounts):
        lies_on = above(spec.mounts[:number], mount.destination)
        if lies_on is not None and not is_devices(lies_on) and not _is_cgroups_place(lies_on, mount):
            return f"{mount.path}.destination: is below {lies_on.destination}"
        if mount.destination.startswith("/proc/") or (mount.destination == "/proc" and mount.kind != "proc"):
            return f"{mount.path}.destination: is in /proc"
    if above(spec.mounts, spec.process.cwd) is not None:
        return "process.cwd: is below a mount"
    if any(mount.destination in {"/etc", "/etc/passwd", "/etc/group"} for mount in spec.mounts):
        return "process.user: is looked up in a mount"
    for path in spec.masked_paths:
        lies_on = above(spec.mounts, path)
        if lies_on is not None and lies_on.kind not in {"proc", "sysfs"}:
            return f"linux.maskedPaths: {path} is below {lies_on.destination}"
    return ""


def above(mounts: tuple[Mount, ...], path: str) -> Mount | None:
    """The mount that a path is in."""
    below = f"{os.path.normpath(path)}/"
    for mount in reversed(mounts):
        if below.startswith(mount.destination) and below[len(mount.destination)] == "/":
            return mount
    return None


def _is_cgroups_place(lies_on: Mount, mount: Mount) -> bool:
    return lies_on.kind == "sysfs" and mount.destination == "/sys/fs/cgroup"

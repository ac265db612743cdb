"""Which containers are plain: all of their first process's set-up can be decided beforehand, and written as a script.

Others are made by `firstprocess`, which can do anything. Most people's containers are plain: without hooks of their
start, terminal, reaper, or agent for their system calls.
"""

import os

from runtime import overlay, syscalls
from runtime.script import machine
from runtime.spec import Hooks, Mount, Spec


def why_not(spec: Spec, *, started: bool) -> str:
    """Why a container is not plain, or "" when it is."""
    joined = {namespace.kind for namespace in spec.namespaces if namespace.path}
    reasons = (
        (not machine.SUPPORTED, "there is no machine code for this processor"),
        (overlay.needs_own_namespace() and _is_heard_outside(spec), "this kernel has mounts that the host hears of"),
        (not started, "it is started later"),
        (spec.process.terminal, "it has a terminal"),
        (spec.init, "it has a reaper"),
        (spec.hooks != Hooks(), "hooks are executed while it is made, or when that fails"),
        (bool(joined & {"pid", "user"}), "it joins a namespace that its processes are born into"),
        (spec.seccomp is not None and spec.seccomp.notifies, "its filter has an agent"),
        (not any(is_devices(mount) for mount in spec.mounts), "it has no /dev of its own"),
    )
    return next((reason for holds, reason in reasons if holds), "") or _unusual_place(spec)


def _is_heard_outside(spec: Spec) -> bool:
    """Only in the host's own mount namespace, which the launcher may have had to leave (`rootfs.prepare`)."""
    return any(mount.options.propagation == syscalls.MS_SHARED for mount in spec.mounts)


def is_devices(mount: Mount) -> bool:
    """Whether a mount is the container's own /dev, which is filled by us."""
    return mount.destination == "/dev" and mount.kind == "tmpfs" and not mount.options.bind


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

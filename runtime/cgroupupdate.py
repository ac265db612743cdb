"""Change the limits of a group that is in use: all of those that are given, or none.

    read what each file holds ──► write ──► a write fails: write back what was there, the last first
                                    │
                                    └► refused only until another has changed (memory above the old memory with swap,
                                       a burst above the old quota): tried again after the others

On version 1 the container has a folder only in the controllers that its first limits needed. For a limit of another
one it gets a folder there: its limits are written while nobody is in it, and its processes move into it last.
"""

import contextlib
import errno
import os

from runtime import cgroupfiles, cgroups_v1, cgroupsetting, errors, values
from runtime.cgroups import Cgroup
from runtime.cgroupsetting import Setting
from runtime.resources import Resources

Written = list[tuple[str, str]]
"""Files, and what to write to have the old limit back."""


def update(group: Cgroup, resources: Resources) -> None:
    """Change the limits; the devices stay as they are. Raises InvalidSpec and SetupFailed."""
    assert not resources.devices, "device rules are not changed"
    resources = _with_limit_in_force(group, resources)
    if resources.memory_check:
        _check_memory(group, resources)
    further = _further_folders(group, resources)
    whole = values.replace(group, folders=(*group.folders, *further))
    written: Written = []
    try:
        for folder in further:
            cgroupfiles.make_folder(folder)
        whole.prepare(resources)
        _write_all(list(whole.settings(resources)), written)
        for folder in further:
            _move_all(group, folder)
    except BaseException as error:
        lost = _put_back(written)
        if lost and isinstance(error, errors.ContainerError):
            error.message += f"; besides, the old limits are not all back: {lost}"
        for folder in further:
            _leave(folder)
        raise


def _with_limit_in_force(group: Cgroup, resources: Resources) -> Resources:
    """Version 2 counts swap alone, so a new limit of memory with swap needs the one of memory, old or new."""
    if not group.layout.is_v2 or resources.memory_swap_bytes is None or resources.memory_limit_bytes is not None:
        return resources
    return values.replace(resources, memory_limit_bytes=group.memory_limit() or -1)


def _check_memory(group: Cgroup, resources: Resources) -> None:
    """`checkBeforeUpdate`: rather refuse than have the kernel take back or kill what is above the new limit."""
    limit, used = resources.memory_limit_bytes, group.stats().memory_bytes
    if limit is not None and 0 < limit < used:
        why = f"{limit} is below the {used} bytes in use; choose more, or leave checkBeforeUpdate out"
        raise cgroupsetting.refuse("memory.limit", why)


def _further_folders(group: Cgroup, resources: Resources) -> tuple[str, ...]:
    """Folders that the limits need and the group does not have."""
    if group.layout.is_v2 or not group.path:
        return ()
    wanted = (group.layout.folder(name, group.path) for name in cgroups_v1.controllers(resources))
    return tuple(folder for folder in dict.fromkeys(wanted) if folder and folder not in group.folders)


def _write_all(left: list[tuple[str, Setting]], written: Written) -> None:
    left = [(file, setting) for file, setting in left if not cgroupsetting.is_needless(file, setting)]
    while left:
        refused = [one for one in left if not _accepted(*one, written)]
        if len(refused) == len(left):
            cgroupsetting.write(*refused[0])
        left = refused


def _accepted(file: str, setting: Setting, written: Written) -> bool:
    """Write one; False when it does not fit what other files hold, which may be about to change."""
    old = _held(file, setting)
    try:
        cgroupsetting.write(file, setting)
    except errors.SetupFailed as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    if old is not None:
        written.append((file, old))
    return True


def _held(file: str, setting: Setting) -> str | None:
    """What to write to have the present limit back; None for a file that only takes orders (memory.reclaim)."""
    try:
        return old_value(setting.file, setting.value, cgroupfiles.read(file))
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        return None


def old_value(file: str, value: str, text: str) -> str:
    """What to write over `value` so that the file says `text` again.

    Files with a line for each device (`8:0 rbps=…`) take one line, and what they do not list has no limit.
    """
    if file == "memory.oom_control":
        return text.split()[1]  # "oom_kill_disable 0", and what has happened
    if file not in _BY_DEVICE or (" " not in value and "\n" not in value):
        first = text.strip()
        return first.removeprefix("default ").splitlines()[0] if file in _BY_DEVICE and first else first
    devices = [line.split(" ", 1)[0] for line in value.splitlines()]
    known = {line.split(" ", 1)[0]: line for line in text.splitlines() if line.strip()}
    return "\n".join(known.get(device, f"{device} {_BY_DEVICE[file]}") for device in devices)


_BY_DEVICE = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "io.latency": "target=0",
    "misc.max": "max",
    "rdma.max": "hca_handle=max hca_object=max",
    "net_prio.ifpriomap": "0",
    "blkio.bfq.weight_device": "default",
    **{
        f"blkio.{name}": "0"
        for name in (
            "weight_device",
            "leaf_weight_device",
            "throttle.read_bps_device",
            "throttle.write_bps_device",
            "throttle.read_iops_device",
            "throttle.write_iops_device",
        )
    },
}
"""Files with a line for each device, and the value of a device that they do not list."""


def _put_back(written: Written) -> str:
    """Write back what was there, the last first; returns why that failed, if it did."""
    lost = []
    for file, old in reversed(written):
        try:
            for line in old.splitlines() or ["\n"]:
                cgroupfiles.write(file, line)
        except errors.SetupFailed as error:
            lost.append(error.message)
    return "; ".join(lost)


def _move_all(group: Cgroup, folder: str) -> None:
    """Move every process of the group, also those that are forked meanwhile."""
    for _ in range(cgroupfiles.ROUNDS):
        there = {int(line) for line in cgroupfiles.read(f"{folder}/cgroup.procs").split()}
        outside = [pid for pid in group.pids() if pid not in there]
        if not outside:
            return
        for pid in outside:
            _move(pid, folder)
    raise errors.SetupFailed(f"cgroup {folder}: the container's processes do not all come; are they forking on?")


def _move(pid: int, folder: str) -> None:
    try:
        cgroupfiles.write(f"{folder}/cgroup.procs", str(pid))
    except errors.SetupFailed as error:
        if error.errno != errno.ESRCH:  # it has ended
            raise


def _leave(folder: str) -> None:
    """Empty a folder that was made for nothing, into the one above, and remove it."""
    for pid in cgroupfiles.read(f"{folder}/cgroup.procs").split():
        _move(int(pid), os.path.dirname(folder))
    with contextlib.suppress(OSError):  # an empty group without effect is no harm, and `delete` removes it
        os.rmdir(folder)

"""What this node can give to a container: its devices, and what the agent itself may do."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.core.isolation import DeviceNode, Machine
from agent.errors import Refused
from protos.orch.v1 import objects_pb2 as pb
from runtime import capabilities, seccompprofile

_DEV: Final = "/dev"
_OWN: Final = frozenset({"console", "ptmx", "tty"})
"""Each container has its own; and what is in the folders below is mounts of their own."""
_FOLDERS: Final = frozenset({"pts", "shm", "mqueue", "hugepages"})


def machine(*, no_users: str = "") -> Machine:
    """Read the machine. The rights of the agent bound those of its containers.

    `no_users` is why containers cannot have users of their own.
    """
    system, status = os.uname(), Path("/proc/self/status").read_text(encoding="ascii")
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    major, minor = system.release.split(".")[:2]
    return Machine(
        capabilities=frozenset(name for name, number in capabilities.NUMBERS.items() if bounding >> number & 1),
        known_capabilities=frozenset(name for name, number in capabilities.NUMBERS.items() if number <= last),
        no_users=no_users,
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii")),
        machine=system.machine,
        kernel=(int(major), int(minor.partition("-")[0])),
        default_filter=seccompprofile.default,
    )


class NodeDevices:
    """The devices below /dev. They are looked at anew each time, as they come and go."""

    def named_by(self, container: pb.Container) -> Mapping[str, DeviceNode]:
        """By path; all there are when the container is privileged. Raises Refused."""
        found = {node.path: node for node in _everything()} if container.privileged else {}
        for device in container.devices:
            found[device.path] = _device(device.path)
        return found


def _device(path: str) -> DeviceNode:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise Refused(
            f"devices: this node has no {path}: {error.strerror}; load its driver, or place the task on a node that "
            f"has it",
            reason="DeviceMissing",
        ) from error
    node = _node(path, status)
    if node is None:
        raise Refused(f"devices: {path} is not a device on this node", reason="DeviceMissing")
    return node


def _everything() -> Iterator[DeviceNode]:
    """Every node below /dev but links, and what each container has of its own."""
    for above, folders, names in os.walk(_DEV):
        folders[:] = sorted(name for name in folders if above != _DEV or name not in _FOLDERS)
        for name in sorted(names):
            path = f"{above}/{name}"
            if above == _DEV and name in _OWN:
                continue
            try:
                node = _node(path, os.lstat(path))
            except FileNotFoundError:  # unplugged a moment ago
                continue
            if node is not None:
                yield node


def _node(path: str, status: os.stat_result) -> DeviceNode | None:
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return DeviceNode(
        path=path,
        kind=kind,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )

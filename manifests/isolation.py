"""Rules of a container's isolation: capabilities, devices, kernel parameters, folders in memory, filters."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from manifests import files, quoting, seccomp, suggest, words
from manifests.paths import Path
from manifests.problems import Problem
from protos.orch.v1 import objects_pb2 as pb

ALL: Final = "ALL"
_PARAMETER: Final = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_/-]+)+", re.ASCII)
_OWN_PARAMETERS: Final = ("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
"""What the kernel keeps for each network or ipc namespace (runtime-spec, "Sysctl")."""
_NAMES: Final = {"kernel.hostname": "write hostname", "kernel.domainname": "write it in hostname"}
TAKEN: Final = ("/proc", "/sys", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Where the runtime's and the agent's own mounts are."""


def problems(container: pb.Container, path: Path) -> Iterator[Problem]:
    """What is wrong with what isolates a container."""
    if container.privileged:
        yield from _privileged(container, path)
    yield from _capabilities(container.capabilities, (*path, "capabilities"))
    yield from _devices(container.devices, (*path, "devices"))
    yield from _sysctls(container.sysctls, (*path, "sysctls"))
    yield from _tmpfs(container.tmpfs, (*path, "tmpfs"))
    # The path of a file is refused by the field's own rule already.
    if container.seccomp and not files.is_path(container.seccomp):
        message, hint = seccomp.problem(container.seccomp)
        if message:
            yield Problem(keys=(*path, "seccomp"), message=message, hint=hint)


def capability(name: str) -> str:
    """`CAP_NET_ADMIN` and `NET_ADMIN` are the same."""
    return name.removeprefix("CAP_")


def _privileged(container: pb.Container, path: Path) -> Iterator[Problem]:
    """What would promise something that a privileged container does not keep."""
    for field, is_there, what in (
        ("capabilities", bool(container.capabilities.ListFields()), "has all capabilities"),
        ("seccomp", container.seccomp not in {"", "unconfined"}, "has no filter of system calls"),
        ("userns", container.userns == pb.USER_NAMESPACE_AUTO, "has the users of the node"),
    ):
        if is_there:
            yield Problem(
                keys=(*path, field), message=f"a privileged container {what}", hint=f"remove {field} or privileged"
            )


def _capabilities(wanted: pb.Capabilities, path: Path) -> Iterator[Problem]:
    for field, names in (("add", wanted.add), ("drop", wanted.drop)):
        for index, name in enumerate(names):
            if capability(name) not in words.CAPABILITIES | {ALL}:
                known = [ALL, *sorted(words.CAPABILITIES)]
                hint = suggest.did_you_mean(capability(name.upper()), known) or "see capabilities(7)"
                message = f"no capability {quoting.shown(name)}"
                yield Problem(keys=(*path, field, index), message=message, hint=hint)
    dropped = {capability(name) for name in wanted.drop}
    for index, name in enumerate(wanted.add):
        if capability(name) in dropped:
            yield Problem(keys=(*path, "add", index), message=f"{name} is dropped, too", hint="remove one of them")


def _devices(devices: Sequence[pb.Device], path: Path) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, device in enumerate(devices):
        for field, value in (("path", device.path), ("containerPath", device.container_path)):
            if value and not _is_plain(value):
                yield Problem(keys=(*path, index, field), message="not a plain path", hint="write it without . and ..")
        first = seen.setdefault(device.container_path or device.path, index)
        if first != index:
            yield Problem(keys=(*path, index), message=f"is at the same place as devices[{first}]")


def _sysctls(sysctls: Mapping[str, str], path: Path) -> Iterator[Problem]:
    for name, value in sorted(sysctls.items()):
        keys = (*path, name)
        if not _PARAMETER.fullmatch(name) or not all(name.split("/")):
            hint = "write it like net.core.somaxconn"
            yield Problem(keys=keys, message="not a kernel parameter's name", hint=hint, at_key=True)
        elif not name.startswith(_OWN_PARAMETERS):
            message = "is the whole node's, and a change would be felt by every container"
            hint = _NAMES.get(name, "set it on the node itself")
            yield Problem(keys=keys, message=message, hint=hint, at_key=True)
        elif not value.strip() or "\n" in value:
            yield Problem(keys=keys, message="needs a value of one line")


def _tmpfs(folders: Mapping[str, pb.Tmpfs], path: Path) -> Iterator[Problem]:
    for folder in sorted(folders):
        message, hint = folder_problem(folder)
        if message:
            yield Problem(keys=(*path, folder), message=message, hint=hint, at_key=True)


def folder_problem(folder: str) -> tuple[str, str]:
    """Why nothing can be mounted at this place of a container, and the remedy; empty when it can."""
    if folder == "/" or not folder.startswith("/") or not _is_plain(folder):
        return "not a folder", "write an absolute path without . and .. and without a / at its end"
    if any(folder == taken or folder.startswith(f"{taken}/") for taken in TAKEN):
        hint = "write shmSize" if folder == "/dev/shm" else "choose another folder"  # noqa: S108 - in the container
        return "the system mounts what is there", hint
    return "", ""


def _is_plain(path: str) -> bool:
    return posixpath.normpath(path) == path and not path.startswith("//")

"""In what a container differs from one that asked for nothing: a line each, for `describe`. Pure."""

from collections.abc import Iterator

from manifests import seccomp
from protos import schema
from protos.orch.v1 import objects_pb2 as pb

_PIDS = pb.ResourceLimits.DESCRIPTOR.fields_by_name["pids"]


def differences(container: pb.Container) -> list[str]:
    """What the container may do beyond the safe defaults, then what it may not; empty when it is as safe as any."""
    return [*_fewer_walls(container), *_more_reach(container), *_less(container)]


def _fewer_walls(container: pb.Container) -> Iterator[str]:
    """What does not stand between its programs and the node."""
    if container.privileged:
        yield "privileged: its root is root of the node"
    if container.userns == pb.USER_NAMESPACE_HOST:
        yield "users of the node: its root is the node's, held by capabilities and filters alone"
    if container.seccomp == seccomp.UNCONFINED:
        yield "system calls are not filtered"
    elif container.seccomp not in {"", seccomp.DEFAULT}:
        yield "system calls are filtered by a profile of its own"
    if container.allow_privilege_escalation:
        yield "programs may gain rights (setuid, file capabilities)"


def _more_reach(container: pb.Container) -> Iterator[str]:
    """What it has on top."""
    if container.capabilities.add:
        yield f"capabilities added: {', '.join(container.capabilities.add)}"
    for device in container.devices:
        place = f" at {device.container_path}" if device.container_path not in {"", device.path} else ""
        yield f"device {device.path}{place} ({device.permissions or 'rw'})"
    yield from (f"kernel parameter {name} = {value}" for name, value in sorted(container.sysctls.items()))
    for folder in sorted(folder for folder, tmpfs in container.tmpfs.items() if tmpfs.exec):
        yield f"programs run from the folder in memory {folder}"
    if container.oom_score_adj < 0:
        yield f"is spared when memory runs out ({container.oom_score_adj})"
    if container.resources.limits.pids > int(schema.rules(_PIDS).default):
        yield f"more processes: {container.resources.limits.pids}"


def _less(container: pb.Container) -> Iterator[str]:
    if container.capabilities.drop:
        yield f"capabilities dropped: {', '.join(container.capabilities.drop)}"
    if container.read_only_rootfs:
        yield "its root file system is read-only"
    if container.user and container.user.partition(":")[0] not in {"0", "root"}:
        yield f"runs as {container.user}, not as root"

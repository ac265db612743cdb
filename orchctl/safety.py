"""In what a container differs from one that asked for nothing: a line each, for `describe`. Pure."""

from collections.abc import Callable, Iterator, Sequence

from manifests import seccomp
from protos import schema
from protos.orch.v1 import objects_pb2 as pb

_PIDS = pb.ResourceLimits.DESCRIPTOR.fields_by_name["pids"]


def differences(container: pb.Container) -> list[str]:
    """What the container may do beyond the safe defaults, then what it may not; empty when it is as safe as any."""
    return [*_fewer_walls(container), *_more_reach(container), *_less(container)]


def users(task: pb.Task, container: pb.Container | None) -> str:
    """Whose users a task's container has; empty while nobody knows. `container` is what was asked for, if known."""
    status = task.status
    if not status.HasField("root_id"):
        return ""
    if status.root_id:
        return f"its own: its root is user {status.root_id} of the node"
    if container is None:
        return "the node's"
    if _asks_for_the_nodes(container):
        return "the node's, as its template asks"
    return "the node's, which can give it none of its own; `orchctl describe node` tells why"


def users_of_tasks(container: pb.Container, tasks: Sequence[pb.Task], node: Callable[[str], str]) -> str:
    """Whose users the containers of a service have, and which of its tasks of this template have others."""
    if _asks_for_the_nodes(container):
        return "the nodes'"
    exposed = [task for task in tasks if task.status.HasField("root_id") and not task.status.root_id]
    if not exposed:
        return "its own"
    named = ", ".join(sorted({node(task.node_id) for task in exposed}))
    return f"its own, but the node's for {len(exposed)} of {len(tasks)} tasks: {named} can give them none"


def users_of_node(description: pb.NodeDescription) -> str:
    """Whose users containers have on a node."""
    return (
        f"containers have the node's: {description.no_users}" if description.no_users else "containers have their own"
    )


def _asks_for_the_nodes(container: pb.Container) -> bool:
    return container.privileged or container.userns == pb.USER_NAMESPACE_HOST


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

"""What stands between a container and its node, as parts of its OCI configuration.

The node's default configuration is the safe one; a function here changes one part of it as the template asks. What a
node cannot give is refused with the field's name, never left out.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.core import seccomp, users
from agent.errors import Refused, Temporary
from protos.orch.v1 import objects_pb2 as pb

SHM: Final = "/dev/shm"  # noqa: S108 - inside the container
_ALL: Final = "CAP_ALL"
_ROOT: Final = frozenset({"", "0", "root"})
_GROUPS: Final = "net.ipv4.ping_group_range"


def _no_filter(capabilities: Collection[str]) -> None:  # noqa: ARG001 - of a node without filters
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device of this node, as stat(2) tells of it."""

    path: str
    kind: str  # c or b
    major: int
    minor: int
    mode: int  # permissions
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a node can give."""

    capabilities: frozenset[str] = frozenset()  # CAP_…: those of the agent itself, as nobody can give more
    known_capabilities: frozenset[str] = frozenset()  # those that its kernel has, all of them in a user namespace
    no_users: str = ""  # why containers cannot have users of their own
    oom_score_adj: int = 0  # the agent's own, which its containers would inherit
    machine: str = "x86_64"  # uname -m
    kernel: tuple[int, int] = (0, 0)
    default_filter: Callable[[Collection[str]], Any] = _no_filter
    """The default `linux.seccomp` for a container with these capabilities in its bounding set."""


def process(
    spec: pb.Container, defaults: Mapping[str, Any], user: str, node: Machine, *, root_id: int
) -> dict[str, Any]:
    """The fields of `process` that say what its programs may do. `user` is the one that it runs as."""
    changed: dict[str, Any] = {
        "capabilities": capabilities(spec, defaults.get("capabilities", {}), user, node, root_id=root_id),
        "noNewPrivileges": not (spec.privileged or spec.allow_privilege_escalation),
    }
    # Raising it is always allowed, lowering it not, so an agent that is spared passes 0 on and any other nothing.
    if spec.oom_score_adj or node.oom_score_adj < 0:
        changed["oomScoreAdj"] = spec.oom_score_adj
    return changed


def capabilities(
    spec: pb.Container, defaults: Mapping[str, Any], user: str, node: Machine, *, root_id: int
) -> dict[str, list[str]]:
    """The five sets. Docker's, add and drop: `{drop: [ALL], add: [CHOWN]}` leaves one.

    Among users of its own a container may have all that there are, since they reach no further; among the node's, those
    of the agent. What is added is ambient for a user who is not root: execve(2) takes all else from them.
    """
    most, whose = (node.known_capabilities, "kernel") if root_id else (node.capabilities, "agent")
    added, dropped = _names(spec.capabilities.add), _names(spec.capabilities.drop)
    lacking = sorted(added - {_ALL} - most)
    if lacking:
        raise Refused(
            f"capabilities.add: this node's {whose} does not have {lacking[0]}, so it can give it to nobody; remove "
            f"it, or {'run a newer kernel' if root_id else 'start the agent with it'}",
            reason="CapabilityMissing",
        )
    if spec.privileged or _ALL in added:
        held = most - dropped
    else:
        own = frozenset() if _ALL in dropped else frozenset(defaults.get("bounding", ())) - dropped
        held = own | added
    sets = {name: sorted(held) for name in ("bounding", "effective", "permitted")}
    if user.partition(":")[0] not in _ROOT and (named := sorted(added - {_ALL})):
        sets["inheritable"] = sets["ambient"] = named
    return sets


def _names(words: Collection[str]) -> frozenset[str]:
    return frozenset(f"CAP_{word.removeprefix('CAP_')}" for word in words)


def system_calls(spec: pb.Container, defaults: Any, held: Mapping[str, Sequence[str]], node: Machine) -> Any:
    """`linux.seccomp`, or None. `defaults` is the one for the default capabilities, which most containers have."""
    wanted = spec.seccomp or ("unconfined" if spec.privileged else "default")
    if wanted == "unconfined":
        return None
    bounding = held["bounding"]
    if wanted == "default":
        return node.default_filter(bounding) if spec.capabilities.ListFields() else defaults
    return seccomp.resolve(wanted, capabilities=bounding, machine=node.machine, kernel=node.kernel)


def kernel_parameters(spec: pb.Container, defaults: Mapping[str, str], *, root_id: int) -> dict[str, str]:
    """`linux.sysctl`. Those of the network are set from outside, so its range of groups is told in the node's ids.

    Groups 0 to 2147483647 of a container whose root is 131072 → `131072 196607`.
    """
    merged = {**defaults, **spec.sysctls}
    words = merged.get(_GROUPS, "").split()
    if root_id and len(words) == 2 and all(word.isdecimal() for word in words):
        merged[_GROUPS] = " ".join(str(root_id + min(int(word), users.SIZE - 1)) for word in words)
    return merged


def user_namespace(linux: Mapping[str, Any], path: str, *, root_id: int) -> dict[str, Any]:
    """The part of `linux` that puts it among users of its own, in the user namespace at that path."""
    mapping = [{"containerID": 0, "hostID": root_id, "size": users.SIZE}]
    namespaces = [*linux["namespaces"], {"type": "user", "path": path}]
    return {"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping}


def check_users(spec: pb.Container, user: str) -> None:
    """Raises Refused for what users of its own cannot have or do."""
    for word in user.split(":"):
        if word.isdecimal() and int(word) >= users.SIZE:
            raise Refused(
                f"user {user}: {word} is beyond the {users.SIZE} ids that a container has; choose a smaller one, or "
                f"write `userns: host`",
                reason="NoUsers",
            )
    for device in spec.devices:
        if "m" in device.permissions:
            raise Refused(
                f"devices: nodes of {device.path} cannot be made among users of its own; leave the m out of "
                f"`permissions: {device.permissions}`, or write `userns: host`",
                reason="NoUsers",
            )


def mounts(
    spec: pb.Container, defaults: Sequence[Mapping[str, Any]], *, volumes: str = "", own_users: bool = False
) -> list[dict[str, Any]]:
    """The runtime's own with the size of /dev/shm, then folders in memory and volumes, those above before those below.

    The task's volumes are in the folder `volumes`, by their names. What is in them has the ids that the containers see,
    so with users of its own a container has them idmapped.
    """
    made = [_tmpfs_mount(folder, tmpfs, spec.resources.limits.memory) for folder, tmpfs in spec.tmpfs.items()]
    for mount in spec.mounts:
        options = ["bind", "nodev", "ro" if mount.read_only else "rw", *(["idmap"] if own_users else [])]
        source = f"{volumes}/{mount.volume}"
        made.append({"destination": mount.path, "type": "bind", "source": source, "options": options})
    return [
        *(_default_mount(spec, mount) for mount in defaults),
        *sorted(made, key=lambda mount: str(mount["destination"])),
    ]


def _tmpfs_mount(folder: str, tmpfs: pb.Tmpfs, limit: int) -> dict[str, Any]:
    """`limit`: of the container's memory, 0 when it has none."""
    size = tmpfs.size or limit
    options = ["nosuid", "nodev", *([] if tmpfs.exec else ["noexec"]), f"mode={tmpfs.mode or '1777'}"]
    options += [f"size={size}"] if size else []
    return {"destination": folder, "type": "tmpfs", "source": "tmpfs", "options": options}


def _default_mount(spec: pb.Container, mount: Mapping[str, Any]) -> dict[str, Any]:
    options = list(mount.get("options", ()))
    if mount["destination"] == SHM and spec.shm_size:
        options = [*(word for word in options if not word.startswith("size=")), f"size={spec.shm_size}"]
    if spec.privileged and mount["type"] in {"sysfs", "cgroup"}:
        options = [word for word in options if word != "ro"]
    return {**mount, "options": options}


def devices(spec: pb.Container, found: Mapping[str, DeviceNode]) -> list[dict[str, Any]]:
    """The nodes to make in the container's /dev: those that it asks for; all of the node's when it is privileged."""
    places = {path: path for path in found} if spec.privileged else {}
    places.update({device.container_path or device.path: device.path for device in spec.devices})
    return [_device(place, found[path]) for place, path in sorted(places.items())]


def _device(place: str, node: DeviceNode) -> dict[str, Any]:
    return {
        "path": place,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def device_rules(
    spec: pb.Container, defaults: Sequence[Mapping[str, Any]], found: Mapping[str, DeviceNode]
) -> list[Mapping[str, Any]]:
    """The device cgroup's rules, of which the last that fits decides."""
    if spec.privileged:
        return [{"allow": True, "access": "rwm"}]
    nodes = ((found[device.path], device.permissions or "rw") for device in spec.devices)
    return [
        *defaults,
        *(
            {"allow": True, "type": node.kind, "major": node.major, "minor": node.minor, "access": access}
            for node, access in nodes
        ),
    ]


def choose_root(task: pb.Task, wanted: pb.Container, pool: users.IdPool, no_users: str) -> int:
    """The node's id of the container's root: the first of a range of its own, or 0 when it has the node's users.

    `no_users` is why this node cannot give any. Raises Refused when the task insists on them, or Temporary when all
    are in use.
    """
    name = f"task {task.meta.name}"
    if wanted.privileged or wanted.userns == pb.USER_NAMESPACE_HOST:
        return 0
    if no_users:
        if wanted.userns == pb.USER_NAMESPACE_AUTO:
            raise Refused(
                f"{name}: container.userns: this node can give it no users of its own: {no_users}; place it on another "
                f"node, or write `userns: host`",
                reason="NoUsers",
            )
        return 0
    first = pool.take(task.meta.id)
    if first is None:
        raise Temporary(
            f"{name}: all {pool.ids.ranges} ranges of user ids of this node ({pool.ids}) are in use; remove tasks, "
            f"start the agent with more of them (--ids), or write `userns: host`",
            reason="NoUsers",
        )
    return first

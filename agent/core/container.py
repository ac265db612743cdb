"""A container's OCI configuration, computed from the task, its template, the image and the node.

Docker's rules for commands hold, because the images were written for them: `command` replaces the image's entry
point and its arguments, `args` replaces the arguments.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agent.core import hostfiles, isolation
from agent.core.hostfiles import Resolving
from agent.core.isolation import DeviceNode, Machine
from agent.errors import Refused
from protos import containers, placeholders
from protos.orch.v1 import objects_pb2 as pb

INIT = "orch.init"
"""The runtime's annotation: process 1 is its reaper."""
CPU_PERIOD_US = 100_000
DEFAULT_PIDS = 4096
DEFAULT_LOG_BYTES = 10 * 1024 * 1024
DEFAULT_LOG_FILES = 3
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image whose layers are unpacked on this node."""

    digest: str  # of its manifest
    layers: tuple[str, ...]  # folders, top first, as overlay wants them
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # NAME=value
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """What every container of a node has in common."""

    name: str
    cgroup_parent: str
    base: Mapping[str, Any]  # the runtime's default configuration; never changed
    machine: Machine = field(default_factory=Machine)
    address: str = ""  # by which other nodes reach it
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRequest:
    """A container to start."""

    container_id: str
    config: Mapping[str, Any]  # OCI runtime specification
    layers: tuple[str, ...]  # top first
    log_max_size: int  # bytes
    log_max_files: int
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Its own files, by path: text that covers what the image has there."""
    until_s: float = 0
    """When it is killed, on the runtime's clock, unless that is put off; 0: never."""


def request(
    *,
    task: pb.Task,
    template: pb.TaskTemplate,
    name: str = "",
    image: PreparedImage,
    node: NodeContext,
    address: str,
    address6: str = "",
    network_namespace: str,
    resolving: Resolving = hostfiles.NOBODY,
    user_namespace: str = "",
    root_id: int = 0,
    devices: Mapping[str, DeviceNode] = MappingProxyType({}),
    volumes: str = "",
) -> ContainerRequest:
    """The container of that `name` to start for a task, the main one when it is empty. `devices` are those of the node
    that it names, `volumes` is the folder that those of the task are in.

    With a `root_id`, the node's id of its root, it has the users of the `user_namespace` at that path; else the node's.
    Raises Refused when there is no program to run, or the node cannot give what is asked for.
    """
    spec, container_id = containers.named(template, name), containers.identity(task.meta.id, name)
    assert spec is not None, f"the template has no container {name}"
    user = spec.user or image.user or "0"
    known = placeholder_values(task, node=node, address=address or address6)

    def expanded(text: str) -> str:
        return placeholders.expand(text, known, node.labels)

    config = dict(node.base)  # what differs is made anew: what is within is everybody's
    config["hostname"] = hostname(task, template.container)
    config["root"] = {**config.get("root", {}), "readonly": spec.read_only_rootfs}
    args = arguments(spec, image, expanded)
    env = environment(task, template, spec, image, expanded, node_name=node.name, address=address, address6=address6)
    config["process"] = {
        **_process(config.get("process", {}), spec, args=args, env=env, image=image, user=user),
        **isolation.process(spec, config.get("process", {}), user, node.machine, root_id=root_id),
    }
    config["annotations"] = {INIT: "true"} if spec.init else {}
    config["mounts"] = isolation.mounts(spec, config.get("mounts", ()), volumes=volumes, own_users=bool(root_id))
    config["linux"] = _linux(config, spec, node.machine, devices, root_id=root_id)
    linux = config["linux"]
    linux["cgroupsPath"] = f"{node.cgroup_parent}/{container_id}"
    linux["namespaces"] = _joining(linux["namespaces"], network_namespace)
    if root_id:
        isolation.check_users(spec, user)
        linux.update(isolation.user_namespace(linux, user_namespace, root_id=root_id))
    return ContainerRequest(
        container_id=container_id,
        config=config,
        layers=image.layers,
        log_max_size=spec.logs.max_size or DEFAULT_LOG_BYTES,
        log_max_files=spec.logs.max_files or DEFAULT_LOG_FILES,
        files=hostfiles.files(
            task, hostname=config["hostname"], addresses=tuple(filter(None, (address, address6))), resolving=resolving
        ),
    )


def _joining(namespaces: Iterable[Mapping[str, Any]], network: str) -> list[Mapping[str, Any]]:
    """The same, but that the network's is the one at that path."""
    return [{"type": "network", "path": network} if entry["type"] == "network" else entry for entry in namespaces]


def _process(
    defaults: Mapping[str, Any],
    spec: pb.Container,
    *,
    args: list[str],
    env: list[str],
    image: PreparedImage,
    user: str,
) -> dict[str, Any]:
    """The container's program, but for what it may do."""
    return {
        **defaults,
        "args": args,
        "env": env,
        "cwd": spec.working_dir or image.working_dir or "/",
        "user": {"username": user},
        "terminal": spec.tty,
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": limit.soft, "hard": limit.hard}
            for name, limit in sorted(spec.ulimits.items())
        ],
    }


def placeholder_values(task: pb.Task, *, node: NodeContext, address: str) -> dict[str, str]:
    """What stands for each of `placeholders.NAMES` in the containers of a task."""
    return {
        "task.id": task.meta.id,
        "task.name": task.meta.name,
        "task.slot": str(task.slot),
        "task.address": address,
        "service.name": task.service,
        "service.namespace": task.meta.namespace,
        "node.name": node.name,
        "node.address": node.address,
    }


def hostname(task: pb.Task, main: pb.Container) -> str:
    """The name that the containers of a task have for themselves."""
    return main.hostname or task.meta.name[:63]


def _linux(
    config: Mapping[str, Any],
    spec: pb.Container,
    machine: Machine,
    devices: Mapping[str, DeviceNode],
    *,
    root_id: int,
) -> dict[str, Any]:
    """What is Linux's alone, but for where the container stands on its node."""
    linux = dict(config.get("linux", {}))
    limits = {**linux.get("resources", {}), **resources(spec.resources)}
    limits["devices"] = isolation.device_rules(spec, limits.get("devices", ()), devices)
    linux["resources"] = limits
    linux["devices"] = isolation.devices(spec, devices)
    linux["sysctl"] = isolation.kernel_parameters(spec, linux.get("sysctl", {}), root_id=root_id)
    held = config["process"]["capabilities"]
    linux["seccomp"] = isolation.system_calls(spec, linux.get("seccomp"), held, machine)
    if linux["seccomp"] is None:
        del linux["seccomp"]
    if spec.privileged:
        linux["maskedPaths"] = linux["readonlyPaths"] = []
    return linux


def arguments(spec: pb.Container, image: PreparedImage, expanded: Callable[[str], str] = str) -> list[str]:
    """What is executed. What the template says is `expanded`; what the image says is not ours to change."""
    command, given = [*map(expanded, spec.command)], [*map(expanded, spec.args)]
    args = [*command, *given] if command else [*image.entrypoint, *(given or image.cmd)]
    if not args:
        raise Refused(
            f"image {spec.image} names no program and neither does the template; set `container.command`",
            reason="NoCommand",
        )
    return args


def environment(
    task: pb.Task,
    template: pb.TaskTemplate,
    spec: pb.Container,
    image: PreparedImage,
    expanded: Callable[[str], str],
    *,
    node_name: str,
    address: str,
    address6: str = "",
) -> list[str]:
    """NAME=value: the image's, then the template's, then who and where the task is."""
    variables = {"PATH": _PATH}
    if spec.tty:
        variables["TERM"] = "xterm"
    for entry in image.env:
        name, _, value = entry.partition("=")
        variables[name] = value
    variables["HOSTNAME"] = hostname(task, template.container)
    variables.update({name: expanded(value) for name, value in spec.env.items()})
    variables.update(
        ORCH_TASK=task.meta.name,
        ORCH_SERVICE=task.service,
        ORCH_NAMESPACE=task.meta.namespace,
        ORCH_SLOT=str(task.slot),
        ORCH_NODE=node_name,
        ORCH_ADDRESS=address or address6,
        **{resource_variable(name): ",".join(one.ids) for name, one in sorted(task.granted.items())},
    )
    if address6:
        variables["ORCH_ADDRESS6"] = address6
    return [f"{name}={value}" for name, value in variables.items()]


def resource_variable(name: str) -> str:
    """`ORCH_RESOURCE_FAST_DISK` for `fast-disk`: which ones of its node it got."""
    return f"ORCH_RESOURCE_{name.upper().replace('-', '_')}"


def resources(wanted: pb.Resources) -> dict[str, Any]:
    """The cgroup's limits.

    cpu 500 (half a processor) → quota 50000 of every 100000 µs; a reservation of 500 → 512 shares of 1024.
    """
    limits, reserved = wanted.limits, wanted.reservations
    found: dict[str, Any] = {"pids": {"limit": limits.pids or DEFAULT_PIDS}}
    if limits.memory:
        # The limit of memory and swap together is the same number, so that nothing is swapped out instead.
        found["memory"] = {"limit": limits.memory, "swap": limits.memory}
    cpu: dict[str, int] = {}
    if limits.cpu:
        cpu.update(quota=limits.cpu * CPU_PERIOD_US // 1000, period=CPU_PERIOD_US)
    if reserved.cpu:
        cpu["shares"] = max(2, reserved.cpu * 1024 // 1000)
    if cpu:
        found["cpu"] = cpu
    return found


def stop_signal(spec: pb.Container, image: PreparedImage) -> str:
    """The signal that asks it to stop."""
    return spec.stop_signal or image.stop_signal or "SIGTERM"

"""The whole configuration, and the rules over several of its fields."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from runtime import cgrouppath, errors, known, reaper
from runtime import resources as limits
from runtime.fields import Fields
from runtime.seccomp import profile as seccomp
from runtime.seccomp.profile import Profile
from runtime.spec import paths
from runtime.spec.devices import Device, parse_device
from runtime.spec.hooks import Hooks, parse_hooks
from runtime.spec.mappings import IdMaps, parse_mappings
from runtime.spec.mounts import Mount, parse_mount, root_propagation
from runtime.spec.namespaces import Namespace, parse_namespaces
from runtime.spec.netdevices import parse_net_devices
from runtime.spec.process import Process, parse_process
from runtime.spec.timeoffsets import TimeOffset, parse_time_offsets
from runtime.spec.treatment import MemoryPolicy, parse_memory_policy, parse_personality
from runtime.values import field, frozen

_MAX_NAME_BYTES: Final = 64  # include/linux/uts.h, __NEW_UTS_LEN
_HOSTNAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


@frozen
class Spec:
    """A whole container."""

    process: Process
    root_path: str = ""
    root_readonly: bool = False
    root_nodev: bool = False  # the image's device nodes do not work; not in config.json
    root_propagation: tuple[int, bool] = (0, False)  # the flag, and whether it is recursive
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    cgroups_path: str = ""
    resources: limits.Resources = field(default_factory=limits.Resources)
    devices: tuple[Device, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    seccomp: Profile | None = None
    hooks: Hooks = field(default_factory=Hooks)
    time_offsets: tuple[TimeOffset, ...] = ()
    personality: int | None = None
    memory_policy: MemoryPolicy | None = None
    net_devices: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # the host's name: ours
    mount_label: str = ""
    id_maps: IdMaps | None = None  # of the user namespace; one to join has its own

    @property
    def user_namespace(self) -> Namespace | None:
        """The user namespace that the container gets, or joins."""
        return next((namespace for namespace in self.namespaces if namespace.kind == "user"), None)

    @property
    def init(self) -> bool:
        """Whether process 1 is the runtime's own reaper: an extension, as an annotation."""
        return self.annotations.get(reaper.ANNOTATION) == "true"

    @property
    def awaits_creator(self) -> bool:
        """Whether the creator has something to do once the container's namespaces are there."""
        return bool(self.hooks.creation or self.net_devices)

    def makes(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this kind."""
        return any(namespace.kind == kind and not namespace.path for namespace in self.namespaces)


def parse(config: Any) -> Spec:
    """Read a decoded `config.json`; raises InvalidSpec."""
    fields = Fields(config, "")
    version = fields.text("ociVersion")
    if not version.startswith("1."):
        raise fields.refuse("ociVersion", f"version {version!r} is not supported; this runtime speaks 1.x")
    fields.unsupported("windows", "solaris", "vm", "zos", "freebsd")
    root = fields.maybe_child("root")
    linux = fields.maybe_child("linux") or Fields({}, "linux")
    linux.unsupported("intelRdt")
    label = linux.text("mountLabel", default="")
    spec = Spec(
        process=parse_process(fields.child("process")),
        root_path=root.text("path") if root else "",
        root_readonly=root.flag("readonly") if root else False,
        root_propagation=root_propagation(linux),
        hostname=_hostname(fields),
        domainname=_domainname(fields),
        mounts=tuple(
            parse_mount(item, label) if label else known.read(item, parse_mount) for item in fields.children("mounts")
        ),
        namespaces=parse_namespaces(linux),
        cgroups_path=_cgroups_path(linux),
        resources=limits.parse(linux),
        devices=tuple(parse_device(item) for item in linux.children("devices")),
        masked_paths=paths.absolute_all(linux, "maskedPaths"),
        readonly_paths=paths.absolute_all(linux, "readonlyPaths"),
        sysctl=MappingProxyType(linux.mapping("sysctl")),
        annotations=MappingProxyType(fields.mapping("annotations")),
        seccomp=seccomp.parse(filtered) if (filtered := linux.maybe_child("seccomp")) else None,
        id_maps=parse_mappings(linux),
        hooks=parse_hooks(fields),
        time_offsets=parse_time_offsets(linux),
        personality=parse_personality(linux),
        memory_policy=parse_memory_policy(linux),
        net_devices=MappingProxyType(parse_net_devices(linux)),
        mount_label=label,
    )
    for used in (root, linux, fields):
        if used is not None:
            used.finish()
    _check_whole(spec)
    return spec


def _hostname(fields: Fields) -> str:
    name = fields.text("hostname", default="")
    if name and not _HOSTNAME.fullmatch(name):
        raise fields.refuse("hostname", f"{name!r} must be letters, digits, dots and dashes, 64 at most")
    return name


def _domainname(fields: Fields) -> str:
    name = fields.text("domainname", default="")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise fields.refuse("domainname", f"{name!r} is above the {_MAX_NAME_BYTES} bytes that the kernel takes")
    return name


def _cgroups_path(linux: Fields) -> str:
    path = linux.text("cgroupsPath", default="")
    if path and (why := cgrouppath.refusal(path)):
        raise linux.refuse("cgroupsPath", f"{path!r} {why}")
    return cgrouppath.absolute(path)


def _check_whole(spec: Spec) -> None:
    """Rules over several fields."""
    kinds = {namespace.kind for namespace in spec.namespaces}
    if not spec.makes("mount"):
        raise errors.InvalidSpec("linux.namespaces: a new mount namespace is required, so add {type: mount}")
    _check_namespaces(spec, kinds)
    if spec.process.console_size and not spec.process.terminal:
        raise errors.InvalidSpec("process.consoleSize: needs process.terminal")
    if reaper.ANNOTATION in spec.annotations:
        notifies = spec.seccomp is not None and spec.seccomp.notifies
        reaper.check(spec.annotations[reaper.ANNOTATION], own_pids=spec.makes("pid"), notifies=notifies)
    if spec.init:
        _check_reaper(spec)
    _check_user_namespace(spec)
    for key in spec.sysctl:
        namespace = sysctl_namespace(key)
        if namespace is None:
            raise errors.InvalidSpec(f"linux.sysctl[{key}]: is not separate for each container, so it is refused")
        if namespace not in kinds:
            raise errors.InvalidSpec(
                f"linux.sysctl[{key}]: needs a namespace of type {namespace}, or the host would change"
            )


def _check_namespaces(spec: Spec, kinds: set[str]) -> None:
    for name, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if value and "uts" not in kinds:
            raise errors.InvalidSpec(f"{name}: needs a uts namespace, or the host's own name would change")
    if spec.time_offsets and not spec.makes("time"):
        raise errors.InvalidSpec("linux.timeOffsets: needs a new time namespace, so add {type: time} without a path")
    if spec.net_devices and "network" not in kinds:
        raise errors.InvalidSpec("linux.netDevices: needs a network namespace, so add {type: network}")


def _check_reaper(spec: Spec) -> None:
    """What a fork does not inherit would not reach the program, which is the reaper's child."""
    scheduler, process = spec.process.scheduler, spec.process
    if scheduler is not None and not scheduler.outlives_fork:
        raise errors.InvalidSpec(
            f"process.scheduler: {scheduler.policy} or its flag does not outlive {reaper.ANNOTATION}"
        )
    for name, value in (("apparmorProfile", process.apparmor_profile), ("selinuxLabel", process.selinux_label)):
        if value:
            raise errors.InvalidSpec(f"process.{name}: the reaper would not have it; leave {reaper.ANNOTATION} out")


def _check_user_namespace(spec: Spec) -> None:
    wanted = spec.user_namespace
    if spec.id_maps is not None and wanted is None:
        raise errors.InvalidSpec("linux.uidMappings: needs a user namespace, so add {type: user} to linux.namespaces")
    if wanted is not None and not wanted.path and spec.id_maps is None:
        raise errors.InvalidSpec("linux.uidMappings: is required for a new user namespace, and so is gidMappings")
    for mount in spec.mounts:
        if mount.options.idmap and mount.id_maps is None and wanted is None:
            raise errors.InvalidSpec(f"{mount.path}.uidMappings: is required for idmap without a user namespace")
        if wanted is not None and mount.destination == "/dev" and mount.kind != "tmpfs" and not mount.options.bind:
            raise errors.InvalidSpec(f"{mount.path}.type: must be tmpfs in a user namespace, to hold the device nodes")


def sysctl_namespace(key: str) -> str | None:
    """The namespace that a kernel parameter belongs to (runtime-spec, "Sysctl"; sysctl(2) of each)."""
    name = key.replace("/", ".")
    if ".." in name or name.startswith(".") or name.endswith("."):
        return None
    if name.startswith("net."):
        return "network"
    if name.startswith(("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")):
        return "ipc"
    return "uts" if name in {"kernel.hostname", "kernel.domainname"} else None

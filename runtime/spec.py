"""The OCI runtime specification's `config.json` (version 1.x, Linux) as values.

Two rules. Whatever the runtime does not do is refused with the field's full path, never ignored; annotations are
the exception that the specification makes. And a value that came out of `parse` needs no further checks.

One extension: `process.user.username` may hold what an image's USER says, `user[:group]` with names or numbers;
it is resolved against the container's own /etc/passwd and /etc/group.
"""

import posixpath
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from runtime import capabilities as caps
from runtime import errors, mountoptions, syscalls
from runtime import resources as limits
from runtime.fields import Fields
from runtime.seccomp import profile as seccomp
from runtime.seccomp.profile import Profile

MAX_ID: Final = 2**32 - 2
"""The highest user and group id; 2³²-1 means "no change" to the kernel."""

_NAMESPACES: Final = {
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "ipc": syscalls.CLONE_NEWIPC,
    "mount": syscalls.CLONE_NEWNS,
    "network": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "uts": syscalls.CLONE_NEWUTS,
}
_RLIMIT_NAME: Final = re.compile(r"RLIMIT_[A-Z]+")
_HOSTNAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who the process runs as. A username, when there is one, decides over uid and gid."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022
    username: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One resource limit; -1 is infinity."""

    name: str
    resource: int
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What to execute, and as whom."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = field(default_factory=User)
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # rows, columns
    capabilities: caps.Capabilities | None = None  # None: as the runtime's own
    no_new_privileges: bool = False
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mount below the root, in the order of the configuration."""

    destination: str
    kind: str
    source: str
    options: mountoptions.MountOptions
    path: str  # the field, for messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device node to make under the root's /dev."""

    path: str
    kind: str  # c, b or p
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace to make, or with a path one to join."""

    kind: str
    flag: int
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Our extension beside the bundle: the root is an overlay of layers (top first) and a writable folder."""

    lower: tuple[str, ...]
    upper: str
    work: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A whole container."""

    process: Process
    root_path: str = ""
    root_readonly: bool = False
    root_propagation: int = 0
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

    def makes(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this kind."""
        return any(namespace.kind == kind and not namespace.path for namespace in self.namespaces)


def parse(config: Any) -> Spec:
    """Read a decoded `config.json`; raises InvalidSpec."""
    fields = Fields(config, "")
    version = fields.text("ociVersion")
    if not version.startswith("1."):
        raise fields.refuse("ociVersion", f"version {version!r} is not supported; this runtime speaks 1.x")
    fields.unsupported("hooks", "windows", "solaris", "vm", "zos", "freebsd")
    root = fields.maybe_child("root")
    linux = fields.maybe_child("linux") or Fields({}, "linux")
    linux.unsupported("uidMappings", "gidMappings", "intelRdt", "mountLabel", "personality", "timeOffsets")
    linux.unsupported("netDevices", "memoryPolicy")
    hostname = fields.text("hostname", default="")
    if hostname and not _HOSTNAME.fullmatch(hostname):
        raise fields.refuse("hostname", f"{hostname!r} must be letters, digits, dots and dashes, 64 at most")
    spec = Spec(
        process=parse_process(fields.child("process")),
        root_path=root.text("path") if root else "",
        root_readonly=root.flag("readonly") if root else False,
        root_propagation=_root_propagation(linux),
        hostname=hostname,
        domainname=fields.text("domainname", default=""),
        mounts=tuple(_mount(item) for item in fields.children("mounts")),
        namespaces=_namespaces(linux),
        cgroups_path=_cgroups_path(linux),
        resources=limits.parse(linux),
        devices=tuple(_device(item) for item in linux.children("devices")),
        masked_paths=_absolute_all(linux, "maskedPaths"),
        readonly_paths=_absolute_all(linux, "readonlyPaths"),
        sysctl=MappingProxyType(linux.mapping("sysctl")),
        annotations=MappingProxyType(fields.mapping("annotations")),
        seccomp=seccomp.parse(filtered) if (filtered := linux.maybe_child("seccomp")) else None,
    )
    for used in (root, linux, fields):
        if used is not None:
            used.finish()
    _check_whole(spec)
    return spec


def parse_overlay(value: Any) -> Overlay:
    """Read the overlay extension."""
    fields = Fields(value, "overlay")
    overlay = Overlay(lower=fields.texts("lower"), upper=fields.text("upper"), work=fields.text("work"))
    fields.finish()
    for name, path in (*(("lower", path) for path in overlay.lower), ("upper", overlay.upper), ("work", overlay.work)):
        if not path.startswith("/"):
            raise fields.refuse(name, f"{path!r} must be an absolute path")
    if not overlay.lower:
        raise fields.refuse("lower", "needs at least one folder")
    return overlay


def parse_process(fields: Fields) -> Process:
    """Read a `process` object, of the container or of an exec."""
    fields.unsupported("apparmorProfile", "selinuxLabel", "ioPriority", "scheduler", "execCPUAffinity")
    process = Process(
        args=fields.texts("args"),
        env=fields.texts("env"),
        cwd=_absolute(fields, "cwd", default="/"),
        user=_user(fields.maybe_child("user") or Fields({}, fields.at("user"))),
        terminal=fields.flag("terminal"),
        console_size=_console_size(fields),
        capabilities=_capabilities(fields),
        no_new_privileges=fields.flag("noNewPrivileges"),
        rlimits=tuple(_rlimit(item) for item in fields.children("rlimits")),
        oom_score_adj=fields.maybe_number("oomScoreAdj", low=-1000, high=1000),
    )
    fields.finish()
    if not process.args:
        raise fields.refuse("args", "needs at least the program")
    for index, entry in enumerate(process.env):
        if "=" not in entry[1:]:
            raise fields.refuse(f"env[{index}]", f"{entry!r} must be NAME=value")
    return process


def _user(fields: Fields) -> User:
    user = User(
        uid=fields.number("uid", low=0, high=MAX_ID, default=0),
        gid=fields.number("gid", low=0, high=MAX_ID, default=0),
        additional_gids=fields.numbers("additionalGids", low=0, high=MAX_ID),
        umask=fields.number("umask", low=0, high=0o777, default=0o022),
        username=fields.text("username", default=""),
    )
    fields.finish()
    return user


def _console_size(fields: Fields) -> tuple[int, int] | None:
    size = fields.maybe_child("consoleSize")
    if size is None:
        return None
    rows_columns = size.number("height", low=0, high=65535), size.number("width", low=0, high=65535)
    size.finish()
    return rows_columns if all(rows_columns) else None


def _capabilities(fields: Fields) -> caps.Capabilities | None:
    sets = fields.maybe_child("capabilities")
    if sets is None:
        return None
    masks = {}
    for name in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        words = sets.texts(name)
        unknown = [word for word in words if word not in caps.NUMBERS]
        if unknown:
            raise sets.refuse(name, f"{unknown[0]!r} is no capability; see capabilities(7)")
        masks[name] = caps.mask(words)
    sets.finish()
    return caps.Capabilities(**masks)


def _rlimit(fields: Fields) -> Rlimit:
    name = fields.text("type")
    number = getattr(resource, name, None) if _RLIMIT_NAME.fullmatch(name) else None
    if not isinstance(number, int):
        raise fields.refuse("type", f"{name!r} is no resource limit; see getrlimit(2)")
    # 2⁶⁴-1 is how the specification's unsigned numbers spell infinity; Python's resource module says -1.
    soft, hard = (fields.number(key, low=0, high=2**64 - 1) for key in ("soft", "hard"))
    fields.finish()
    if soft > hard:
        raise fields.refuse("soft", f"{soft} is above the hard limit {hard}")
    return Rlimit(name=name, resource=number, soft=_signed(soft), hard=_signed(hard))


def _signed(limit: int) -> int:
    return resource.RLIM_INFINITY if limit >= 2**63 else limit


def _mount(fields: Fields) -> Mount:
    destination = _absolute(fields, "destination")
    kind, source, words = fields.text("type", default=""), fields.text("source", default=""), fields.texts("options")
    fields.unsupported("uidMappings", "gidMappings")
    fields.finish()
    options = mountoptions.parse(words, kind=kind, path=fields.path)
    if destination == "/":
        raise fields.refuse("destination", "the root itself is given by root.path or the overlay")
    if not options.bind and not kind:
        raise fields.refuse("type", "is required, unless options hold bind or rbind")
    if options.bind and not source.startswith("/"):
        raise fields.refuse("source", f"{source!r} must be an absolute path for a bind mount")
    return Mount(destination=destination, kind=kind, source=source, options=options, path=fields.path)


def _namespaces(linux: Fields) -> tuple[Namespace, ...]:
    found: dict[str, Namespace] = {}
    for fields in linux.children("namespaces"):
        kind, path = fields.text("type"), fields.text("path", default="")
        fields.finish()
        if kind in {"user", "time"}:
            raise fields.refuse("type", f"{kind} namespaces are not supported by this runtime; remove the entry")
        if kind not in _NAMESPACES:
            raise fields.refuse("type", f"{kind!r} is no namespace; use one of {', '.join(_NAMESPACES)}")
        if kind in found:
            raise fields.refuse("type", f"{kind} is there twice")
        if path and not path.startswith("/"):
            raise fields.refuse("path", f"{path!r} must be an absolute path")
        found[kind] = Namespace(kind=kind, flag=_NAMESPACES[kind], path=path)
    return tuple(found.values())


def _device(fields: Fields) -> Device:
    device = Device(
        path=_absolute(fields, "path"),
        kind={"u": "c"}.get(kind := fields.text("type"), kind),
        major=fields.number("major", low=0, high=2**32 - 1, default=0),
        minor=fields.number("minor", low=0, high=2**32 - 1, default=0),
        mode=fields.number("fileMode", low=0, high=0o177777, default=0o666) & 0o7777,
        uid=fields.number("uid", low=0, high=MAX_ID, default=0),
        gid=fields.number("gid", low=0, high=MAX_ID, default=0),
    )
    fields.finish()
    if device.kind not in {"b", "c", "p"}:
        raise fields.refuse("type", f"{device.kind!r} must be c, u, b or p")
    if not device.path.startswith("/dev/"):
        raise fields.refuse("path", f"{device.path!r} must be below /dev")
    return device


def _root_propagation(linux: Fields) -> int:
    word = linux.text("rootfsPropagation", default="")
    if not word:
        return 0
    return mountoptions.propagation_flags(word, linux.at("rootfsPropagation"))[0]


def _cgroups_path(linux: Fields) -> str:
    path = linux.text("cgroupsPath", default="")
    if path and (not path.startswith("/") or ".." in path.split("/") or posixpath.normpath(path) == "/"):
        raise linux.refuse("cgroupsPath", f"{path!r} must be an absolute path of a group below the root")
    return posixpath.normpath(path) if path else ""


def _absolute(fields: Fields, name: str, *, default: str | None = None) -> str:
    path = fields.text(name, default=default)
    if not path.startswith("/"):
        raise fields.refuse(name, f"{path!r} must be an absolute path")
    return posixpath.normpath("/" + path.lstrip("/"))


def _absolute_all(fields: Fields, name: str) -> tuple[str, ...]:
    paths = fields.texts(name)
    for index, path in enumerate(paths):
        if not path.startswith("/"):
            raise fields.refuse(f"{name}[{index}]", f"{path!r} must be an absolute path")
    return paths


def _check_whole(spec: Spec) -> None:
    """Rules over several fields."""
    kinds = {namespace.kind for namespace in spec.namespaces}
    if not spec.makes("mount"):
        raise errors.InvalidSpec("linux.namespaces: a new mount namespace is required, so add {type: mount}")
    if (spec.hostname or spec.domainname) and "uts" not in kinds:
        raise errors.InvalidSpec("hostname: needs a uts namespace, or the host's own name would change")
    if spec.process.console_size and not spec.process.terminal:
        raise errors.InvalidSpec("process.consoleSize: needs process.terminal")
    for key in spec.sysctl:
        namespace = _sysctl_namespace(key)
        if namespace is None:
            raise errors.InvalidSpec(f"linux.sysctl[{key}]: is not separate for each container, so it is refused")
        if namespace not in kinds:
            raise errors.InvalidSpec(
                f"linux.sysctl[{key}]: needs a namespace of type {namespace}, or the host would change"
            )


def _sysctl_namespace(key: str) -> str | None:
    """The namespace that a kernel parameter belongs to (runtime-spec, "Sysctl"; sysctl(2) of each)."""
    name = key.replace("/", ".")
    if ".." in name or name.startswith(".") or name.endswith("."):
        return None
    if name.startswith("net."):
        return "network"
    if name.startswith(("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")):
        return "ipc"
    return "uts" if name in {"kernel.hostname", "kernel.domainname"} else None

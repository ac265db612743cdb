"""`process`: what to execute, as whom, and with what rights."""

import re
import resource
from typing import Final

from runtime import capabilities as caps
from runtime import known
from runtime.fields import Fields
from runtime.spec import paths
from runtime.spec.treatment import (
    CpuAffinity,
    IoPriority,
    Scheduler,
    parse_affinity,
    parse_io_priority,
    parse_scheduler,
)
from runtime.values import field, frozen

MAX_ID: Final = 2**32 - 2
"""The highest user and group id; 2³²-1 means "no change" to the kernel."""

_RLIMIT_NAME: Final = re.compile(r"RLIMIT_[A-Z]+")


@frozen
class User:
    """Who the process runs as. A username, when there is one, decides over uid and gid."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022
    username: str = ""


@frozen
class Rlimit:
    """One resource limit; -1 is infinity."""

    name: str
    resource: int
    soft: int
    hard: int


@frozen
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
    io_priority: IoPriority | None = None
    scheduler: Scheduler | None = None
    exec_affinity: CpuAffinity = field(default_factory=CpuAffinity)  # not for a container's first process
    apparmor_profile: str = ""
    selinux_label: str = ""


def parse_process(fields: Fields) -> Process:
    """Read a `process` object, of the container or of an exec."""
    process = Process(
        args=fields.texts("args"),
        env=fields.texts("env"),
        cwd=paths.absolute(fields, "cwd", default="/"),
        user=_user(fields.maybe_child("user") or Fields({}, fields.at("user"))),
        terminal=fields.flag("terminal"),
        console_size=_console_size(fields),
        capabilities=_capabilities(fields),
        no_new_privileges=fields.flag("noNewPrivileges"),
        rlimits=tuple(_rlimit(item) for item in fields.children("rlimits")),
        oom_score_adj=fields.maybe_number("oomScoreAdj", low=-1000, high=1000),
        io_priority=parse_io_priority(fields),
        scheduler=parse_scheduler(fields),
        exec_affinity=parse_affinity(fields),
        apparmor_profile=fields.text("apparmorProfile", default=""),
        selinux_label=fields.text("selinuxLabel", default=""),
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
    return known.read(sets, _sets) if sets is not None else None


def _sets(sets: Fields) -> caps.Capabilities:
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

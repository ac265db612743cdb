"""Scopes: the cgroups that systemd makes, for who asks with `--systemd-cgroup`.

systemd wants to be the only writer of the groups that it made, so it is asked for a scope (systemd.scope(5)) in which
others may make groups of their own ("delegation", https://systemd.io/CGROUP_DELEGATION), and the container gets the
group `container` in it. The scope itself is not ours: what one writes into its files, systemd takes back when it
reloads its configuration.

    /system.slice/docker-1f3c.scope              systemd's, for slice:prefix:name = system.slice:docker:1f3c
    ├── container                                the container's, with its limits
    └── creator                                  this process, until it ends (version 2 has processes in leaves only)

A scope begins with a process. It is the calling one, from which the container's first process descends: an ordinary
user could not move one in from elsewhere. It ends by itself when nobody is in it any more.

One rule: systemd's own private socket is used, which is there without a message bus.
"""

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime import cgroupfiles, cgrouppath, cgroups, dbus, errors, privilege, spec
from runtime.values import frozen

_CREATOR: Final = "creator"
_BOOTED: Final = "/run/systemd/system"  # sd_booted(3)
_MANAGER: Final = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"
_AGAIN_S: Final = 2.0
_PAUSE_S: Final = 0.02
_NAME: Final = re.compile(r"[A-Za-z0-9:_.\\-]+")
_MAX_NAME_BYTES: Final = 255
_ANNOTATION: Final = "org.systemd.property."
_NUMBER: Final = re.compile(r"(?:(byte|int16|uint16|int32|uint32|int64|uint64) )?(-?\d+)")
_TEXT: Final = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")
_TYPES: Final = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    None: "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
}


@frozen
class Scope:
    """A unit, and the slice that it is part of."""

    slice: str
    unit: str


def scope(path: str, container: str) -> Scope:
    """What `linux.cgroupsPath` names; nothing, or no slice, is the default. Raises InvalidSpec."""
    if path and not cgrouppath.is_systemds(path):
        raise errors.InvalidSpec(
            f"linux.cgroupsPath: {path!r} is a path, and --systemd-cgroup needs slice:prefix:name, such as "
            "system.slice:orchrun:web; write that, or leave the flag out"
        )
    above, prefix, name = path.split(":") if path else ("", "orchrun", container)
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    above = above or ("system.slice" if privilege.is_host_root() else "user.slice")
    for what, text in (("slice", above), ("scope", unit)):
        if not _NAME.fullmatch(text) or len(text) > _MAX_NAME_BYTES or not text.endswith(f".{what}"):
            raise errors.InvalidSpec(
                f"linux.cgroupsPath: {text!r} is no name of a {what}, which ends with .{what} and has letters, digits "
                f"and ':-_.\\' only, {_MAX_NAME_BYTES} at most (systemd.unit(5))"
            )
    return Scope(slice=above, unit=unit)


def settle(config: dict[str, Any], container: str) -> tuple[dict[str, Any], Callable[[], str]]:
    """What a configuration asks for: the same with a path, and who enters the scope and returns the real path.

    The path is where `delete` looks for a container whose creation was cut short. Raises InvalidSpec.
    """
    linux = config.get("linux") or {}
    path = linux.get("cgroupsPath") or "" if isinstance(linux, dict) else None
    if not isinstance(path, str):
        spec.parse(config)
    assert isinstance(path, str), "the parser says what is wrong with another one"
    wanted = scope(path, container)
    annotations = config.get("annotations") or {}
    return cgrouppath.replaced(config, expected(wanted)), functools.partial(enter, wanted, container, annotations)


def expected(wanted: Scope) -> str:
    """The path of the container's group below the manager's own: a-b.slice is /a.slice/a-b.slice."""
    words = wanted.slice.removesuffix(".slice").split("-")
    above = "".join(f"/{'-'.join(words[:count])}.slice" for count in range(1, len(words) + 1) if words[0])
    return f"{above}/{wanted.unit}/{cgrouppath.IN_SCOPE}"


def enter(wanted: Scope, container: str, annotations: Mapping[str, str]) -> str:
    """Have systemd make the scope, with this process in it; the path of the group that is the container's.

    Raises InvalidSpec where systemd does not run, and SetupFailed.
    """
    own: dict[str, tuple[str, Any]] = {
        "Description": ("s", f"container {container}"),
        "Slice": ("s", wanted.slice),
        "Delegate": ("b", True),
        "PIDs": ("au", [os.getpid()]),
        # Else systemd ends all containers of a daemon before the daemon itself when the machine shuts down.
        "DefaultDependencies": ("b", False),
        # A scope that failed is forgotten, too, so that its name is free again.
        "CollectMode": ("s", "inactive-or-failed"),
        **properties(annotations),
    }
    with _connect() as connection:
        job = _start(connection, wanted.unit, list(own.items()))
        _await(connection, job, wanted.unit)
    return _move_aside()


def stop(scope: str) -> None:
    """End a scope, by its group's path, unless somebody is in it still, such as a command in the foreground.

    systemd hears of an empty one by itself, but not before who asks can make the next of this name.
    """
    if cgroups.of(scope).pids():
        return
    unit = os.path.basename(scope)
    with contextlib.suppress(errors.ContainerError, OSError), _connect() as connection:
        answer = connection.call(*_MANAGER, "StopUnit", "ss", unit, "replace")
        if answer.kind == dbus.RETURN:
            _await(connection, answer.values()[0], unit)


def properties(annotations: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Those of the unit that annotations ask for, by name: `org.systemd.property.TimeoutStopUSec: uint64 5000000`."""
    return {
        name.removeprefix(_ANNOTATION): _value(name, text)
        for name, text in annotations.items()
        if name.startswith(_ANNOTATION)
    }


def _value(name: str, text: str) -> tuple[str, Any]:
    """A number, a truth value or a text as GVariant writes it."""
    if text in {"true", "false"}:
        return "b", text == "true"
    if (number := _NUMBER.fullmatch(text)) and dbus.holds(_TYPES[number[1]], int(number[2])):
        return _TYPES[number[1]], int(number[2])
    if quoted := _TEXT.fullmatch(text):
        return "s", quoted[1] if quoted[1] is not None else quoted[2]
    raise errors.InvalidSpec(
        f"annotations.{name}: {text!r} is not supported; give a number such as `uint64 5`, true, false, or a text in "
        "single quotes"
    )


def _connect() -> dbus.Connection:
    where = "/run/systemd/private"
    if not privilege.is_host_root():
        where = f"{os.environ.get('XDG_RUNTIME_DIR', '')}/systemd/private"
    if not os.path.isdir(_BOOTED):
        raise errors.InvalidSpec(
            f"--systemd-cgroup: systemd does not run on this machine ({_BOOTED} is not there); use --cgroup-manager "
            "cgroupfs"
        )
    try:
        return dbus.Connection(where)
    except OSError as error:
        raise errors.SetupFailed(
            f"--systemd-cgroup: {where}: {error.strerror or error}; is this user's systemd running (loginctl "
            "enable-linger), or use --cgroup-manager cgroupfs",
            step="systemd",
            errno=error.errno or 0,
        ) from None


def _start(connection: dbus.Connection, unit: str, wanted: list[tuple[str, tuple[str, Any]]]) -> str:
    """The job. A scope of that name that is just ending is waited for."""
    deadline = time.monotonic() + _AGAIN_S
    while True:
        answer = connection.call(*_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", wanted, [])
        if answer.kind == dbus.RETURN:
            return str(answer.values()[0])
        if answer.member != _EXISTS or time.monotonic() > deadline:
            raise _refused(unit, answer)
        connection.call(*_MANAGER, "ResetFailedUnit", "s", unit)
        time.sleep(_PAUSE_S)


def _refused(unit: str, answer: dbus.Message) -> errors.SetupFailed:
    said = answer.values()
    why = str(said[0]) if said else answer.member
    remedy = f"; stop it (systemctl stop {unit}), or use another cgroupsPath" if answer.member == _EXISTS else ""
    return errors.SetupFailed(f"systemd: {unit}: {why}{remedy}", step="systemd")


def _await(connection: dbus.Connection, job: str, unit: str) -> None:
    for signal in connection.signals():
        if signal.member != "JobRemoved":
            continue
        _, path, _, result = signal.values()
        if path == job:
            if result != "done":
                raise errors.SetupFailed(f"systemd: {unit}: {result}; look at systemctl status {unit}", step="systemd")
            return


def _move_aside() -> str:
    """Make room for the container's group in the scope that this process is in; the group's path."""
    layout = cgroups.current_layout()
    found = _own_group()
    if layout.is_v2:
        folder = f"{layout.unified}{found}/{_CREATOR}"
        cgroupfiles.make_folder(folder)
        cgroupfiles.write(f"{folder}/cgroup.procs", "0")
    return f"{found}/{cgrouppath.IN_SCOPE}"


def _own_group() -> str:
    """Where systemd has this process: its hierarchy of version 1, or version 2's (cgroups(7))."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    named = [path for _, names, path in rows if names == "name=systemd"]
    return (named or [path for _, names, path in rows if not names])[0]

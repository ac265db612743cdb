"""Network namespaces that outlive the containers in them: each is pinned by a bind mount on a file.

A container joins one by its path, so a container that is started again in place keeps its address. One whose
containers have a user namespace is made with it, belongs to it, and both are pinned: root in the container then rules
its network, and every container that comes after has the same users.
"""

import contextlib
import errno
import os
from typing import Any

from runtime import errors, firstprocess, syscalls, userns
from runtime.fields import Fields
from runtime.spec.mappings import IdMaps, parse_mappings
from runtime.values import frozen


@frozen
class Owner:
    """A user namespace to make: what it maps, and where it is pinned."""

    path: str
    maps: IdMaps


@frozen
class Pins:
    """A network namespace, and with an owner the user namespace that it belongs to."""

    path: str
    owner: Owner | None = None


def parse(body: dict[str, Any]) -> Pins:
    """Read a `netns-create` request; raises InvalidSpec."""
    fields = _fields(body)
    owned = fields.maybe_child("owner")
    pins = Pins(path=_path(fields), owner=_owner(owned) if owned is not None else None)
    fields.finish()
    return pins


def parse_paths(body: dict[str, Any]) -> tuple[str, ...]:
    """Read a `netns-delete` request: the paths to unpin, the network namespace's first; raises InvalidSpec."""
    fields = _fields(body)
    names = ("path", "owner") if fields.has("owner") else ("path",)
    paths = tuple(_path(fields, name) for name in names)
    fields.finish()
    return paths


def _fields(body: dict[str, Any]) -> Fields:
    return Fields({name: value for name, value in body.items() if name not in {"id", "verb"}}, "")


def _owner(fields: Fields) -> Owner:
    path, maps = _path(fields), parse_mappings(fields)
    if maps is None:
        raise fields.refuse("uidMappings", "is required, and so is gidMappings: the namespace is a new one")
    fields.finish()
    return Owner(path=path, maps=maps)


def _path(fields: Fields, name: str = "path") -> str:
    path = fields.text(name)
    if not path.startswith("/"):
        raise fields.refuse(name, f"{path!r} must be an absolute path")
    return path


def create(wanted: Pins) -> None:
    """Make a namespace with `lo` up and pin it, its owner first. Leaves the calling process inside it: fork first."""
    with contextlib.ExitStack() as undo:
        with errors.step(f"network namespace {wanted.path}"):
            if wanted.owner is None:
                syscalls.unshare(syscalls.CLONE_NEWNET)
                _pin("/proc/self/ns/net", wanted.path, undo)
            else:
                _make_owned(wanted.path, wanted.owner, undo)
            firstprocess.bring_up("lo")
        undo.pop_all()


def _make_owned(path: str, owner: Owner, undo: contextlib.ExitStack) -> None:
    """The kernel gives a new network namespace to the user namespace that is made in the same call."""
    with userns.inhabited(owner.maps, syscalls.CLONE_NEWNET) as pid:
        _pin(f"/proc/{pid}/ns/user", owner.path, undo)
        _pin(f"/proc/{pid}/ns/net", path, undo)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(fd, syscalls.CLONE_NEWNET)
    os.close(fd)


def _pin(namespace: str, path: str, undo: contextlib.ExitStack) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    undo.callback(delete, path)
    syscalls.bind(namespace, path)


def delete(path: str) -> None:
    """Unpin a namespace; it ends with the last process in it. Nothing to delete is no error."""
    with errors.step(f"namespace {path}"):
        try:
            syscalls.umount2(path, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:  # no mount point, no file
                raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

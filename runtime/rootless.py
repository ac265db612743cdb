"""What is different for whoever is not the host's root: an ordinary user, or root in a user namespace such as podman's.

An ordinary user's command goes into the container's user namespace itself, and into a mount namespace that belongs to
it, before it makes anything; from there on it is root, of what is mapped. Then both cases are one, and differ from
the host's root in what the kernel grants: no cgroup may be a user's to make, no device node can be made (`devices`
binds the host's), groups may have to stay as they are, and the score by which memory is freed can only rise.

One rule: what nobody asked for is gone without, and what was asked for and cannot be had is refused by its field.
"""

import errno
import fcntl
import os
from typing import Final

from runtime import errors, privilege, syscalls, values
from runtime.cgroups import Cgroup
from runtime.resources import Resources
from runtime.spec import Process, Spec
from runtime.spec.mappings import IdMaps, IdRange, parse_text, text

_NS_GET_USERNS: Final = 0xB701
_NOT_OURS: Final = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})


def enter(wanted: Spec) -> Spec:
    """Become root of the container's user namespace, if need be; returns what is still to be made in it."""
    if os.geteuid() != 0:
        _check(wanted)
        _unshare(wanted)
        return _inside(wanted)
    if privilege.in_user_namespace():
        if wanted.id_maps is not None:
            _check_ids(wanted.id_maps)
        if not _owns_mounts():
            with errors.step("mount namespace"):
                syscalls.unshare(syscalls.CLONE_NEWNS)
    return wanted


def join(container: Spec, process: Process, first_process: int) -> tuple[Spec, Process]:
    """Likewise for a further process of a container that an ordinary user has."""
    if os.geteuid() == 0 or container.user_namespace is None:
        return container, process
    syscalls.set_dumpable(1)
    _raise_oom_score(process.oom_score_adj)
    syscalls.set_dumpable(0)
    with errors.step("join the container's user namespace"):
        syscalls.setns(first_process, syscalls.CLONE_NEWUSER)
    return _inside(container), values.replace(process, oom_score_adj=None)


def create_group(group: Cgroup, resources: Resources) -> Cgroup:
    """Make the container's cgroup; one without folders if it may not be made and nothing is limited."""
    try:
        group.create(resources)
    except errors.SetupFailed as error:
        if error.errno not in _NOT_OURS or not privilege.in_user_namespace():
            raise
        # What devices there are, a user namespace decides: it lets nobody make a node.
        if values.replace(resources, devices=(), counts_io=False) != Resources():
            message = f"linux.resources: this user may not make the cgroup {group.path} ({error.message}); leave the "
            message += "limits out, or have the folder above it given to the user"
            raise errors.SetupFailed(message, step="linux.resources", errno=error.errno) from error
        return values.replace(group, folders=())
    return group


def _inside(wanted: Spec) -> Spec:
    others = tuple(namespace for namespace in wanted.namespaces if namespace.kind != "user")
    process = values.replace(wanted.process, oom_score_adj=None)
    return values.replace(wanted, namespaces=others, id_maps=None, process=process)


def _check(wanted: Spec) -> None:
    """What an ordinary user may ask for."""
    namespace = wanted.user_namespace
    if namespace is None or namespace.path:
        raise errors.InvalidSpec("linux.namespaces: an ordinary user needs a new user namespace; add {type: user}")
    assert wanted.id_maps is not None, "a new user namespace without mappings"
    uid, gid = os.geteuid(), os.getegid()
    own = IdMaps(uids=(_only(uid),), gids=(_only(gid),))
    for name, asked, possible in (
        ("uidMappings", wanted.id_maps.uids, own.uids),
        ("gidMappings", wanted.id_maps.gids, own.gids),
    ):
        if asked != possible:
            raise errors.InvalidSpec(
                f"linux.{name}: an ordinary user may map root to the own id only, which is "
                f"{{containerID: 0, hostID: {possible[0].outside}, size: 1}}; for more, call this command from a user "
                "namespace, such as podman unshare makes"
            )
    for mount in wanted.mounts:
        if mount.options.idmap or mount.id_maps is not None:
            raise errors.InvalidSpec(f"{mount.path}.options: an ordinary user cannot have idmapped mounts")


def _check_ids(maps: IdMaps) -> None:
    """A container's ids are among those that this process has itself."""
    for name, ranges, file in (("uidMappings", maps.uids, "uid_map"), ("gidMappings", maps.gids, "gid_map")):
        with open(f"/proc/self/{file}", encoding="ascii") as table:
            here = parse_text(table.read())
        for each in ranges:
            if not any(our.inside <= each.outside <= our.inside + our.size - each.size for our in here):
                raise errors.InvalidSpec(
                    f"linux.{name}: hostID {each.outside} (size {each.size}) is not among the ids of the user "
                    f"namespace that this command is in, which are in /proc/self/{file}"
                )


def _only(number: int) -> IdRange:
    return IdRange(inside=0, outside=number, size=1)


def _unshare(wanted: Spec) -> None:
    """As long as this process's files in /proc are its own, which they are not in one that nobody may look into."""
    assert wanted.id_maps is not None, "checked before"
    with errors.step("linux.namespaces: user"):
        syscalls.set_dumpable(1)
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        # In this order: the kernel takes a user's map of groups only when setgroups(2) is given up.
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", text(wanted.id_maps.gids))
        _write("/proc/self/uid_map", text(wanted.id_maps.uids))
    _raise_oom_score(wanted.process.oom_score_adj)
    syscalls.set_dumpable(0)


def _raise_oom_score(score: int | None) -> None:
    """Of this process, from which the container's inherit it."""
    if score is None:
        return
    with errors.step("process.oomScoreAdj"):
        try:
            _write("/proc/self/oom_score_adj", str(score))
        except PermissionError as error:
            raise OSError(error.errno, f"{score} is below this process's own, and a user may only raise it") from error


def _owns_mounts() -> bool:
    """Whether the mount namespace belongs to our user namespace (ioctl_ns(2)); EPERM: it belongs to one above."""
    mounts, users = (os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "user"))
    try:
        owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    except PermissionError:
        return False
    else:
        same = os.path.samestat(os.fstat(owner), os.fstat(users))
        os.close(owner)
        return same
    finally:
        os.close(mounts)
        os.close(users)


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)

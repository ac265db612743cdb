"""Idmapped mounts: the ids on disk stay as they are, and a container sees them as its own (mount_setattr(2))."""

import errno
import os

from runtime import errors, syscalls, userns
from runtime.spec import Mount
from runtime.spec.mappings import IdRange


def apply(copy: int, mount: Mount, owner: userns.Owner | None) -> None:
    """Idmap a detached copy of a bind mount's source as its own mappings say, else as the user namespace does."""
    if mount.id_maps is None and not mount.options.idmap:
        return
    if mount.id_maps is not None:
        namespace = userns.make(mount.id_maps)
    else:
        assert owner is not None, "idmap without mappings and without a user namespace"
        namespace = os.dup(owner.fd)
    try:
        syscalls.idmap_mount(copy, namespace, recursive=mount.options.idmap_recursive)
    except OSError as error:
        raise unsupported(f"{mount.path}: {mount.source}", error) from error
    finally:
        os.close(namespace)


def apply_to_root(copy: int, path: str, owner: userns.Owner) -> None:
    """Idmap a copy of `root.path`, unless whoever made it has given it ids of the container already."""
    status = os.fstat(copy)
    if _is_mapped(owner.maps.uids, status.st_uid) and _is_mapped(owner.maps.gids, status.st_gid):
        return
    try:
        syscalls.idmap_mount(copy, owner.fd, recursive=True)
    except OSError as error:
        raise unsupported(f"root.path: {path}", error) from error


def _is_mapped(ranges: tuple[IdRange, ...], number: int) -> bool:
    return any(each.outside <= number < each.outside + each.size for each in ranges)


def unsupported(what: str, error: OSError) -> errors.SetupFailed:
    """The failure of idmapping a mount."""
    return errors.SetupFailed(f"{what} {why_not(error)}", step="idmap", errno=error.errno or 0)


def why_not(error: OSError) -> str:
    """Why a mount could not be idmapped, and what to do."""
    reasons = {
        errno.EINVAL: "its file system or one below it cannot be; use ext4, xfs, btrfs, or tmpfs from Linux 6.3 on",
        errno.EPERM: "it is idmapped already, or belongs to another user namespace",
        errno.ENOSYS: "this kernel has no idmapped mounts; Linux 5.19 or later has what is needed",
    }
    return f"cannot be idmapped: {reasons.get(error.errno or 0, error.strerror)}"

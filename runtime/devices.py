"""The container's /dev: the few nodes that every program may count on, and the links beside them."""

import os
import stat
from typing import Final

from runtime import errors, paths, syscalls
from runtime.spec import Device, mappings
from runtime.spec.mappings import IdMaps

_CHARACTER_NODES: Final = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_LINKS: Final = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
)
_KINDS: Final = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_NULL: Final = os.makedev(1, 3)


def fill(folder: int, extra: tuple[Device, ...], maps: IdMaps | None = None, *, empty: bool = False) -> None:
    """Make the nodes and links in the open folder; the umask must be 0. What is there already stays.

    With `maps` the caller has the host's ids: the devices' owners, which are the container's, are translated. `empty`:
    nothing is there.
    """
    for name, major, minor in _CHARACTER_NODES:
        if empty or not _is_there(folder, name):
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=folder)
    for name, target in _LINKS:
        if empty or not _is_there(folder, name):
            os.symlink(target, name, dir_fd=folder)
    for device in extra:
        _add(folder, device, _owner(device, maps))


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _owner(device: Device, maps: IdMaps | None) -> tuple[int, int]:
    if maps is None:
        return device.uid, device.gid
    uid, gid = mappings.outside(maps.uids, device.uid), mappings.outside(maps.gids, device.gid)
    if uid is None or gid is None:
        raise errors.InvalidSpec(f"linux.devices: {device.path}: {device.uid}:{device.gid} is not in the id mappings")
    return uid, gid


def _add(folder: int, device: Device, owner: tuple[int, int]) -> None:
    above, _, name = device.path.removeprefix("/dev/").rpartition("/")
    parent = paths.make_folder(folder, above or "/", links=False)
    if _is_there(parent, name):
        os.unlink(name, dir_fd=parent)
    os.mknod(name, _KINDS[device.kind] | device.mode, os.makedev(device.major, device.minor), dir_fd=parent)
    os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    os.close(parent)


def open_null(root: int, flags: int = os.O_PATH) -> int:
    """The container's /dev/null, which must be that very device: an image may have put something else there."""
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    fd = syscalls.openat2(root, "/dev/null", flags, resolve=resolve)
    status = os.fstat(fd)
    if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL):
        os.close(fd)
        raise errors.SetupFailed("/dev/null in the container is not the null device", step="open /dev/null")
    return fd

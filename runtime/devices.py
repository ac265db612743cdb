"""The container's /dev: the few nodes that every program may count on, and the links beside them."""

import errno
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
    given = {device.path for device in extra}
    for name, major, minor in _CHARACTER_NODES:
        if f"/dev/{name}" not in given and (empty or not _is_there(folder, name)):
            _make_node(folder, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), f"/dev/{name}")
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
    number = os.makedev(device.major, device.minor)
    if _make_node(parent, name, _KINDS[device.kind] | device.mode, number, device.path):
        os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    os.close(parent)


def _make_node(folder: int, name: str, mode: int, number: int, path: str) -> bool:
    """Make a node; or where the kernel lets nobody make one, bind the host's, with its owner and mode: then False."""
    try:
        os.mknod(name, mode, number, dir_fd=folder)
    except PermissionError:
        _bind_node(folder, name, mode, number, path)
        return False
    return True


def _bind_node(folder: int, name: str, mode: int, number: int, path: str) -> None:
    with errors.step(f"{path}: bind the host's, since no node may be made in a user namespace"):
        node = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE | syscalls.AT_SYMLINK_NOFOLLOW)
        try:
            status = os.fstat(node)
            if stat.S_IFMT(status.st_mode) != stat.S_IFMT(mode) or status.st_rdev != number:
                raise OSError(errno.ENODEV, "that is another device there")
            target = paths.make_file(folder, name)
            syscalls.move_mount(node, target)
            os.close(target)
        finally:
            os.close(node)


def open_null(root: int, flags: int = os.O_PATH) -> int:
    """The container's /dev/null, which must be that very device: an image may have put something else there."""
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    fd = syscalls.openat2(root, "/dev/null", flags, resolve=resolve)
    status = os.fstat(fd)
    if not (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL):
        os.close(fd)
        raise errors.SetupFailed("/dev/null in the container is not the null device", step="open /dev/null")
    return fd

"""`tmpcopyup`: what the image has in a folder is copied into the tmpfs that covers it.

The tree is the image's, so it is walked by descriptors: no link is followed, no mount is entered, and nothing but
folders and regular files is ever opened. What is neither is made anew by its kind.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from runtime import errors, syscalls
from runtime.spec import Mount
from runtime.values import frozen

MAX_DEPTH: Final = 200
MAX_ENTRIES: Final = 1 << 20

_INSIDE: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY
_CHUNK_BYTES: Final = 1 << 30
_OWN_OPTIONS: Final = ("mode=", "uid=", "gid=")


def fill(source: int, copy: int, mount: Mount) -> None:
    """Copy the content of an open folder into the root of an unattached tmpfs, and how the folder is itself."""
    walk = _Walk(mount)
    above = syscalls.openat2(source, ".", _FOLDER, resolve=_INSIDE)
    below = syscalls.openat2(copy, ".", _FOLDER, resolve=_INSIDE)
    try:
        walk.copy_content(above, below)
        if not any(option.startswith(_OWN_OPTIONS) for option in mount.options.data):
            _dress(f"/proc/self/fd/{above}", f"/proc/self/fd/{below}", os.fstat(above), follow=True)
    finally:
        os.close(above)
        os.close(below)


@frozen
class _Level:
    """A folder that is being copied, and what of it is still to come."""

    source: int
    copy: int
    path: str
    names: Iterator[str]

    def close(self) -> None:
        os.close(self.source)
        os.close(self.copy)


class _Walk:
    """One copy. Files with several names are known by what they are on the disk, and linked again."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.entries = 0
        self.levels: list[_Level] = []
        self.linked: dict[tuple[int, int], str] = {}

    def copy_content(self, source: int, copy: int) -> None:
        """Depth first, with a stack of our own: how deep a tree is, is up to the image."""
        self._enter(os.dup(source), os.dup(copy), "")
        try:
            while self.levels:
                level = self.levels[-1]
                name = next(level.names, None)
                if name is None:
                    self._leave()
                    continue
                path = f"{level.path}/{name}"
                with errors.step(f"{self.mount.path}: tmpcopyup of {self.mount.destination}{path}"):
                    self._copy(level, name, path)
        finally:
            for level in self.levels:
                level.close()

    def _enter(self, source: int, copy: int, path: str) -> None:
        names = os.listdir(source)
        self.levels.append(_Level(source=source, copy=copy, path=path, names=iter(names)))
        self.entries += len(names)
        if len(self.levels) > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"more than {MAX_DEPTH} folders deep; copy it without tmpcopyup")
        if self.entries > MAX_ENTRIES:
            raise OSError(errno.ENOSPC, f"more than {MAX_ENTRIES} files; copy them without tmpcopyup")

    def _leave(self) -> None:
        """A folder's own times change with its content, so they come last."""
        done = self.levels.pop()
        if self.levels:
            name, parent = os.path.basename(done.path), self.levels[-1].copy
            _dress(f"/proc/self/fd/{done.source}", f"/proc/self/fd/{parent}/{name}", os.fstat(done.source), follow=True)
        done.close()

    def _copy(self, level: _Level, name: str, path: str) -> None:
        found = _find(level.source, name)
        try:
            status = os.fstat(found)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=level.copy)
                source = syscalls.openat2(found, ".", _FOLDER, resolve=_INSIDE)
                self._enter(source, syscalls.openat2(level.copy, name, _FOLDER, resolve=_INSIDE), path)
                return
            known = self.linked.get((status.st_dev, status.st_ino))
            if known is not None:
                root = self.levels[0].copy
                os.link(known, name, src_dir_fd=root, dst_dir_fd=level.copy, follow_symlinks=False)
                return
            _make(found, status, level.copy, name)
            link = stat.S_ISLNK(status.st_mode)
            source_path = f"/proc/self/fd/{level.source}/{name}" if link else f"/proc/self/fd/{found}"
            _dress(source_path, f"/proc/self/fd/{level.copy}/{name}", status, follow=not link)
            if status.st_nlink > 1:
                self.linked[status.st_dev, status.st_ino] = path.lstrip("/")
        finally:
            os.close(found)


def _find(folder: int, name: str) -> int:
    try:
        return syscalls.openat2(folder, name, os.O_PATH | os.O_NOFOLLOW, resolve=_INSIDE)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise OSError(errno.EXDEV, "something is mounted there; put that mount after this one") from error


def _make(found: int, status: os.stat_result, folder: int, name: str) -> None:
    if stat.S_ISREG(status.st_mode):
        # By the descriptor, which is known to be a regular file: opening any other thing may do something.
        source = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            _copy_data(source, copy, status.st_size)
        finally:
            os.close(source)
            os.close(copy)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink("", dir_fd=found), name, dir_fd=folder)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=folder)


def _copy_data(source: int, copy: int, size: int) -> None:
    """What is a hole stays one: a file of the image may claim to be larger than the machine's memory."""
    os.ftruncate(copy, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(copy, start, os.SEEK_SET)
        while start < end:
            sent = os.sendfile(copy, source, start, min(end - start, _CHUNK_BYTES))
            if not sent:  # it became shorter meanwhile
                return
            start += sent


def _dress(source: str, copy: str, status: os.stat_result, *, follow: bool) -> None:
    """Owner, mode, attributes and times, in this order: each may undo one before it."""
    os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=follow)
    if follow:  # a link has no mode of its own
        os.chmod(copy, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=follow):
        value = os.getxattr(source, name, follow_symlinks=follow)
        try:
            os.setxattr(copy, name, value, follow_symlinks=follow)
        except OSError as error:
            raise OSError(error.errno, f"the attribute {name}: {error.strerror}; remove it from the image") from error
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=follow)

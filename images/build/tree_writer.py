"""Files, folders, links and nodes that are made inside a tree whose root is an open descriptor.

Rules. A folder is reached through `views.locate`, so links lead nowhere but inside the tree; what is made there is made
by name in that folder's descriptor and never through a link. What has a name already gives way, unless it is a folder
that a file would have to replace. A folder's time is set when all that goes into it is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from images import errors, streams
from images.build import descriptors, views
from images.build.layerdiff import HARMLESS_DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_XATTRS: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What a file is like beside its content. Without a time it has that of the moment; layers know whole seconds."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: _NO_XATTRS)


class TreeWriter:
    """Writes below `root`. Paths are relative to it, and end up below it whatever they say."""

    def __init__(self, root: int, *, what: str) -> None:
        self.root = root
        self._what = what
        self._times: dict[str, int] = {}

    def finish(self) -> None:
        """Give the folders their times, the deepest first."""
        for path in sorted(self._times, key=lambda path: path.count("/"), reverse=True):
            fd = self._open_folder(path)
            with descriptors.closing(fd):
                os.utime(fd, (self._times[path], self._times[path]))
        self._times.clear()

    # What can be made -------------------------------------------------------------------------------------------------

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there, perhaps by way of links."""
        try:
            os.close(views.locate(self.root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                return False
            raise self.refuse(path, os.strerror(error.errno or 0)) from error
        return True

    def folders(self, path: str, looks: Looks) -> None:
        """Make a folder and those above it, as far as they are missing."""
        try:
            real = views.real_path(self.root, path)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                raise
            raise self.refuse(path, f"{os.strerror(error.errno)}: it leads through what is no folder") from error
        reached = ""
        for name in real.split("/") if real else ():
            reached = f"{reached}/{name}".strip("/")
            if not self.is_folder(reached):
                self._new_folder(reached, looks)

    def folder(self, path: str, looks: Looks, *, described: bool) -> None:
        """Make one folder in a folder that is there; an old one is described anew only if asked to."""
        if self.is_folder(path):
            if described:
                self._describe_folder(path, looks)
            return
        self._new_folder(path, looks)

    def file(self, path: str, content: Iterable[memoryview | bytes] | int, looks: Looks) -> None:
        """A regular file: its bytes, or an open file to copy from."""
        with descriptors.closing(self._new_file(path)) as fd:
            if isinstance(content, int):
                copy_content(content, fd)
            else:
                for data in content:
                    streams.write_all(fd, data)
            self._describe(fd, looks)

    def pieces(self, path: str, pieces: Iterable[tuple[int, bytes]], size_bytes: int, looks: Looks) -> None:
        """A regular file whose content comes in pieces with gaps."""
        with descriptors.closing(self._new_file(path)) as fd:
            for offset, data in pieces:
                os.lseek(fd, offset, os.SEEK_SET)
                streams.write_all(fd, data)
            os.ftruncate(fd, size_bytes)
            self._describe(fd, looks)

    def link(self, path: str, target: str, looks: Looks) -> None:
        """A symbolic link, whose mode means nothing."""
        parent, name = self._make_room(path)
        with descriptors.closing(parent):
            os.symlink(target, name, dir_fd=parent)
            self._describe_name(parent, name, looks)

    def hardlink(self, path: str, target: str) -> None:
        """One more name of a file of the tree, or of a link itself."""
        try:
            fd = views.locate_unfollowed(self.root, target)
        except OSError as error:
            raise self.refuse(path, f"hard link to {target!r:.200}, which is not there") from error
        with descriptors.closing(fd):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise self.refuse(path, f"hard link to {target!r:.200}, which is a folder")
            if self._is_same(path, os.fstat(fd)):
                return
            parent, name = self._make_room(path)
            with descriptors.closing(parent):
                os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)

    def node(self, path: str, kind: int, device: int, looks: Looks) -> None:
        """A pipe, or a device that every container has anyway."""
        numbers = (os.major(device), os.minor(device))
        if kind != stat.S_IFIFO and (kind != stat.S_IFCHR or numbers not in HARMLESS_DEVICES):
            raise self.refuse(path, "device {}:{} cannot be in an image".format(*numbers))
        parent, name = self._make_room(path)
        with descriptors.closing(parent):
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
            self._describe_name(parent, name, looks)
            os.chmod(name, looks.mode, dir_fd=parent)

    # Inside -----------------------------------------------------------------------------------------------------------

    def refuse(self, path: str, reason: str) -> errors.InvalidImage:
        return errors.InvalidImage(f"{self._what}: /{path}: {reason}")

    def _is_same(self, path: str, found: os.stat_result) -> bool:
        parent, name = self._parent(path)
        with descriptors.closing(parent), contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), found)
        return False

    def _open_folder(self, path: str) -> int:
        try:
            return views.locate(self.root, path, _FOLDER)
        except OSError as error:
            raise self.refuse(path, os.strerror(error.errno or 0)) from error

    def _new_folder(self, path: str, looks: Looks) -> None:
        parent, name = self._parent(path)
        with descriptors.closing(parent):
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError as error:
                raise self.refuse(
                    path, "a file is there, and a folder cannot take its place; remove it first"
                ) from error
        self._describe_folder(path, looks)

    def _describe_folder(self, path: str, looks: Looks) -> None:
        fd = self._open_folder(path)
        with descriptors.closing(fd):
            self._describe(fd, looks)
        if looks.mtime_s is not None:
            self._times[path] = looks.mtime_s

    def _parent(self, path: str) -> tuple[int, str]:
        above, _, name = path.strip("/").rpartition("/")
        if name in {"", ".", ".."}:
            raise self.refuse(path, "is no name for a file")
        return self._open_folder(above), name

    def _new_file(self, path: str) -> int:
        """Mostly nothing is in the way, so that is tried first."""
        parent, name = self._parent(path)
        with descriptors.closing(parent), contextlib.suppress(FileExistsError):
            return os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        parent, name = self._make_room(path)
        with descriptors.closing(parent):
            return os.open(name, _NEW_FILE, 0o600, dir_fd=parent)

    def _make_room(self, path: str) -> tuple[int, str]:
        parent, name = self._parent(path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:
            os.close(parent)
            raise self.refuse(path, "a folder is there, and a file cannot take its place; remove it first") from error
        return parent, name

    def _describe(self, fd: int, looks: Looks) -> None:
        # In this order: a change of owner clears set-id bits and capabilities, and each step but the last a time.
        os.fchown(fd, looks.uid, looks.gid)
        os.fchmod(fd, looks.mode)
        for key, value in looks.xattrs.items():
            os.setxattr(fd, key, value)
        if looks.mtime_s is not None:
            os.utime(fd, (looks.mtime_s, looks.mtime_s))

    def _describe_name(self, parent: int, name: str, looks: Looks) -> None:
        os.chown(name, looks.uid, looks.gid, dir_fd=parent, follow_symlinks=False)
        if looks.mtime_s is not None:
            os.utime(name, (looks.mtime_s, looks.mtime_s), dir_fd=parent, follow_symlinks=False)


def copy_content(source: int, target: int) -> None:
    """Copy the rest of a file: by the kernel, which shares the blocks where the file system can."""
    try:
        while os.copy_file_range(source, target, 1 << 30):
            pass
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        while data := os.read(source, streams.CHUNK_BYTES):
            streams.write_all(target, data)

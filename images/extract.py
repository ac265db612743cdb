"""Put the entries of a layer into a folder, as overlayfs wants to see them.

Runs inside `images.unpacker`, in a process that has made the folder its root. Rules:

- Names are resolved one folder at a time without following symbolic links; an entry whose path passes through one is
  refused. So even without the chroot nothing is written outside.
- `.wh.NAME` becomes a character device 0:0, and `.wh..wh..opq` the attribute `trusted.overlay.opaque` (kernel,
  filesystems/overlayfs). No other entry may make either: a 0:0 device or a `trusted.overlay.*` attribute is refused.
- Whiteouts hide what is below, never what the same layer brings, whichever comes first (OCI layer specification).
- The last of several entries with one name wins.
- Devices: those that every container has anyway (null, zero, full, random, urandom, tty, console, ptmx) are made; any
  other is refused.
- Attributes: `user.*`, `security.capability` and POSIX access lists are kept; overlayfs' own are refused; the rest
  (SELinux labels and the like) describe the machine that packed the layer and are left out.
- A folder's time is the one its entry gives, whatever is put into it later. Folders that are only implied are
  root's, 0755, with the time of the entry that implied them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from images import errors, streams, syscalls
from images.tarstream import Entry, Kind, TarReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from images.compression import Limits

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS_PRIVATE = ".wh..wh."
_OPAQUE_XATTR = "trusted.overlay.opaque"
_HARMLESS_DEVICES = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
_KEPT_XATTRS = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


@dataclass(slots=True)
class _Folder:
    """The folder that was used last, kept open; `times` are put back when it is left."""

    path: str
    fd: int
    times: tuple[int, int]


class Extractor:
    """Applies entries below the folder `root_fd`; use as a context manager."""

    def __init__(self, root_fd: int, *, limits: Limits, what: str) -> None:
        self._root = root_fd
        self._limits = limits
        self._what = what
        self._implied_folders = 0
        self._folder: _Folder | None = None
        self._entry = Entry(name="", kind=Kind.DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def apply(self, reader: TarReader) -> None:
        """Unpack everything that the reader gives."""
        for entry in reader:
            self._entry = entry
            try:
                self._apply(entry, reader.segments())
            except OSError as error:
                raise self._failed(error) from error
        self._leave()

    def _apply(self, entry: Entry, content: Iterable[tuple[int, bytes]]) -> None:
        parent, _, name = entry.name.rpartition("/")
        if is_bookkeeping(entry.name):
            return  # bookkeeping of a file system that nobody has any more; Docker passes it by as well
        if f"/{_WHITEOUT}" in f"/{parent}":
            raise self._refuse("a whiteout cannot be a folder")
        if not entry.name:
            self._top(entry)
        elif name == _OPAQUE:
            os.setxattr(self._enter(parent), _OPAQUE_XATTR, b"y")
        elif name.startswith(_WHITEOUT):
            self._whiteout(self._enter(parent), name.removeprefix(_WHITEOUT))
        else:
            self._make(self._enter(parent), name, entry, content)

    def _top(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise self._refuse(f"the top of a layer must be a folder, not a {entry.kind.value}")
        self._describe(self._enter(""), entry)

    def _make(self, parent: int, name: str, entry: Entry, content: Iterable[tuple[int, bytes]]) -> None:
        if entry.kind is Kind.DIRECTORY:
            self._directory(parent, name, entry)
            return
        self._clear(parent, name)
        match entry.kind:
            case Kind.FILE:
                self._file(parent, name, entry, content)
            case Kind.HARDLINK:
                self._hardlink(parent, name, entry)
            case Kind.SYMLINK:
                os.symlink(entry.link, name, dir_fd=parent)
                self._describe_link(parent, name, entry)
            case Kind.FIFO:
                self._node(parent, name, entry, stat.S_IFIFO)
            case Kind.CHARACTER_DEVICE if is_harmless(entry):
                self._node(parent, name, entry, stat.S_IFCHR)
            case Kind.CHARACTER_DEVICE | Kind.BLOCK_DEVICE:
                raise self._refuse(
                    "this {} {}:{} is refused; build the image without it".format(entry.kind.value, *entry.device)
                )

    # What entries make ------------------------------------------------------------------------------------------------

    def _directory(self, parent: int, name: str, entry: Entry) -> None:
        fd = self._make_folder(parent, name)
        try:
            self._describe(fd, entry)
        finally:
            os.close(fd)

    def _make_folder(self, parent: int, name: str) -> int:
        """Open the folder `name`, made when missing; what else had the name gives way."""
        found = _stat(parent, name)
        hides = found is not None and _is_whiteout(found)
        if found is None or not stat.S_ISDIR(found.st_mode):
            if found is not None:
                self._clear(parent, name)
            os.mkdir(name, 0o755, dir_fd=parent)
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        if hides:
            # The whiteout stood for "nothing from below", and so does an opaque folder.
            os.setxattr(fd, _OPAQUE_XATTR, b"y")
        return fd

    def _file(self, parent: int, name: str, entry: Entry, content: Iterable[tuple[int, bytes]]) -> None:
        if entry.size_bytes > self._limits.max_bytes:
            raise errors.LimitExceeded(
                f"{self._title}: {entry.size_bytes} bytes; the bound is {self._limits.max_bytes}"
            )
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            end = 0
            for offset, data in content:
                if offset != end:
                    os.lseek(fd, offset, os.SEEK_SET)
                streams.write_all(fd, data)
                end = offset + len(data)
            if end != entry.size_bytes:
                os.ftruncate(fd, entry.size_bytes)
            self._describe(fd, entry)
        finally:
            os.close(fd)

    def _hardlink(self, parent: int, name: str, entry: Entry) -> None:
        folder, _, target = entry.link.rpartition("/")
        try:
            fd = syscalls.open_beneath(self._root, folder or ".", _FOLDER)
        except OSError as error:
            raise self._refuse(f"hard link to {entry.link!r:.200}, which is not in this layer") from error
        try:
            found = _stat(fd, target)
            if found is None or stat.S_ISDIR(found.st_mode) or _is_whiteout(found):
                raise self._refuse(f"hard link to {entry.link!r:.200}, which is no file of this layer")
            os.link(target, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(fd)

    def _node(self, parent: int, name: str, entry: Entry, kind: int) -> None:
        os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _whiteout(self, parent: int, name: str) -> None:
        if name in {"", ".", ".."}:
            raise self._refuse("a whiteout must name one file")
        found = _stat(parent, name)
        if found is None:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        elif stat.S_ISDIR(found.st_mode):
            fd = os.open(name, _FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            with _closing(fd):
                os.setxattr(fd, _OPAQUE_XATTR, b"y")
        # Any other file of this layer hides the one below by itself.

    # What entries say about it ----------------------------------------------------------------------------------------

    def _describe(self, fd: int, entry: Entry) -> None:
        # In this order: chown clears setuid bits and capabilities, and every step but the last changes a time.
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            if self._wants(key):
                self._set_attribute(fd, key, value)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        if self._folder is not None and entry.name == self._folder.path:
            self._folder.times = (entry.mtime_ns, entry.mtime_ns)

    def _set_attribute(self, fd: int, key: str, value: bytes) -> None:
        try:
            os.setxattr(fd, key, value)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise self._refuse(f"extended attribute {key!r:.60} has a value that the kernel refuses") from error

    def _describe_link(self, parent: int, name: str, entry: Entry) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _wants(self, key: str) -> bool:
        if key.startswith(_OVERLAY_XATTRS):
            raise self._refuse(f"extended attribute {key!r:.60} would steer overlayfs")
        return key in _KEPT_XATTRS or key.startswith("user.")

    # Folders ----------------------------------------------------------------------------------------------------------

    def _enter(self, path: str) -> int:
        """The folder that an entry goes into, opened; consecutive entries mostly share it."""
        if self._folder is None or self._folder.path != path:
            self._leave()
            fd = self._open(path)
            found = os.fstat(fd)
            self._folder = _Folder(path=path, fd=fd, times=(found.st_atime_ns, found.st_mtime_ns))
        return self._folder.fd

    def _leave(self) -> None:
        if self._folder is not None:
            folder, self._folder = self._folder, None
            with _closing(folder.fd):
                os.utime(folder.fd, ns=folder.times)

    def _open(self, path: str) -> int:
        try:
            return syscalls.open_beneath(self._root, path or ".", _FOLDER)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._refuse("its path passes through a symbolic link of the same layer") from error
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                raise
        return self._open_implied(path)

    def _open_implied(self, path: str) -> int:
        """Make the folders that the archive did not list."""
        fd = os.open(".", _FOLDER | os.O_CLOEXEC, dir_fd=self._root)
        for name in path.split("/"):
            with _closing(fd):
                fd = self._implied(fd, name)
        return fd

    def _implied(self, parent: int, name: str) -> int:
        found = _stat(parent, name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            return os.open(name, _FOLDER | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        if found is not None and not _is_whiteout(found):
            raise self._refuse(f"its folder {name!r:.100} is no folder in the same layer")
        self._implied_folders += 1
        if self._implied_folders > self._limits.max_entries:
            raise errors.LimitExceeded(
                f"{self._title}: more than {self._limits.max_entries} folders that no entry lists"
            )
        times = os.fstat(parent)
        fd = self._make_folder(parent, name)
        os.utime(fd, ns=(self._entry.mtime_ns, self._entry.mtime_ns))
        os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        return fd

    def _clear(self, parent: int, name: str) -> None:
        """Make room: an earlier entry of the same name loses."""
        found = _stat(parent, name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    # Complaints -------------------------------------------------------------------------------------------------------

    @property
    def _title(self) -> str:
        return f"{self._what}: entry {self._entry.name!r:.300}"

    def _refuse(self, reason: str) -> errors.InvalidImage:
        return errors.InvalidImage(f"{self._title}: {reason}")

    def _failed(self, error: OSError) -> errors.StorageFailed:
        if error.errno in {errno.ENOTSUP, errno.EPERM}:
            hint = "the store needs root and a file system with device nodes and extended attributes (ext4, xfs, btrfs)"
        else:
            hint = "check the disk below the image store"
        # The error's own text may hold the raw path, which is no text for a terminal.
        return errors.StorageFailed(f"{self._title}: {os.strerror(error.errno or 0)}; {hint}")


def is_bookkeeping(path: str) -> bool:
    """Whether the entry is a note that AUFS made for itself."""
    return f"/{_AUFS_PRIVATE}" in f"/{path}" and path.rpartition("/")[2] != _OPAQUE


def hidden(path: str) -> str | None:
    """The name that a whiteout hides in its folder, "" for all of them; None for what is no whiteout."""
    name = path.rpartition("/")[2]
    if is_bookkeeping(path) or not name.startswith(_WHITEOUT):
        return None
    return "" if name == _OPAQUE else name.removeprefix(_WHITEOUT) or "."


def is_harmless(entry: Entry) -> bool:
    """Whether a device is one that every container has anyway."""
    return entry.kind is Kind.CHARACTER_DEVICE and entry.device in _HARMLESS_DEVICES


def _stat(parent: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


@contextlib.contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)

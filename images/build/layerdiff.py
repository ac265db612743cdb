"""What a step has changed, as the tar of an OCI layer: from the upper folder of an overlay.

Rules. The same folder gives the same bytes: entries are sorted, times are whole seconds, no user has a name, and with
`epoch_s` nothing is younger than that. The folder is first made to say what the tar will say (`settle`), so that it may
serve as the unpacked layer from then on. And what our own unpacking would refuse, or would take for something else, is
refused here, where the step that made it is known: devices that not every container has, names that begin like a
whiteout, attributes that steer overlayfs, and more than the bounds of layers allow. A folder in which something still
runs is read without `settle`: what goes away meanwhile is not in the tar, and no name that is replaced leads anywhere.

The kernel's forms (filesystems/overlayfs): a character device 0:0 hides a name; the attribute `trusted.overlay.opaque`
on a folder hides what is below it. The layer's forms (OCI image layer specification): `.wh.NAME`, and `.wh..wh..opq`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from images import compression, errors, streams, tarheader, tarstream, tarwrite
from images.build import descriptors, sparse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
HARMLESS_DEVICES = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})
KEPT_XATTRS = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})
_OVERLAY_XATTRS = "trusted.overlay."
_OPAQUE_XATTR = f"{_OVERLAY_XATTRS}opaque"
_UNSUPPORTED_XATTRS = (f"{_OVERLAY_XATTRS}redirect", f"{_OVERLAY_XATTRS}metacopy")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND_NS = 1_000_000_000
_SPARSE_FROM_BYTES = 1 << 20
_LIMITS = compression.Limits()
_LESS = "make it smaller, or several steps of it"
_EMPTY: frozenset[str] = frozenset()
# The rest of what one extended header may have is for paths, and for what tells attributes apart.
_MAX_XATTR_BYTES = tarheader.MAX_EXTENDED_BYTES // 2
# The PAX key under which tars of GNU, Go and libarchive carry extended attributes.
_PAX_XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """A name below the upper folder: its path, how it was found, and the kept attributes of it."""

    path: str
    found: os.stat_result
    xattrs: dict[str, bytes] = field(default_factory=dict)
    link: str = ""
    opaque: bool = False


def settle(upper_fd: int, *, epoch_s: int | None = None) -> None:
    """Make the folder say what its tar will say: no sockets, no notes of overlayfs, times as they go into a tar."""
    _settle(upper_fd, "", epoch_s)


def check_length(path: str) -> None:
    """`InvalidImage` for a path that no image can hold; whoever walks down asks first, for the stack's sake as well."""
    if len(os.fsencode(path)) > tarstream.MAX_PATH_BYTES or path.count("/") >= tarstream.MAX_DEPTH:
        raise errors.InvalidImage(f"/{path:.100}…: too long or too deep for an image; make the path shorter")


def _settle(upper_fd: int, path: str, epoch_s: int | None) -> None:
    for name in descriptors.names(upper_fd):
        found = os.stat(name, dir_fd=upper_fd, follow_symlinks=False)
        if stat.S_ISSOCK(found.st_mode):
            os.unlink(name, dir_fd=upper_fd)  # it ended with the process that listened to it
        elif stat.S_ISDIR(found.st_mode):
            inner = f"{path}/{name}" if path else name
            check_length(inner)
            with _opened(upper_fd, name) as fd:
                _settle(fd, inner, epoch_s)
        elif not _is_whiteout(found):
            _forget_overlay(upper_fd, name, found)
            _set_time(found, epoch_s, name, upper_fd)
    _forget_overlay(upper_fd, ".", os.fstat(upper_fd))
    _set_time(os.fstat(upper_fd), epoch_s, ".", upper_fd)


def write(
    upper_fd: int,
    sink: streams.Sink,
    *,
    limits: compression.Limits = _LIMITS,
    leave_out: Collection[str] = _EMPTY,
) -> None:
    """Write the layer's tar, but for the paths in `leave_out`. Call `settle` before, unless something runs in it.

    `LimitExceeded` for what nobody would unpack again.

    The top folder always has its entry: what stacks the layers takes the root's mode and owner from the highest.
    """
    seen: dict[tuple[int, int], str] = {}
    gathered = _Gathered(sink, limits.max_bytes)
    _write_item(gathered, _folder_item(upper_fd, "."), None, seen)
    # A folder that hides what is below it takes a second entry.
    left = limits.max_entries - 1
    for item, content in _walk(upper_fd, "", leave_out):
        left -= 2 if item.opaque else 1
        if left < 0:
            raise errors.LimitExceeded(
                f"/{item.path:.300}: the layer has more than {limits.max_entries} files; {_LESS}"
            )
        _write_item(gathered, item, content, seen)
    tarwrite.write_end(gathered)
    gathered.flush()


class _Gathered:
    """Small writes made into large ones: a header is a twentieth of what a write to a blob costs."""

    def __init__(self, sink: streams.Sink, max_bytes: int) -> None:
        self._sink = sink
        self._held = bytearray()
        self._max_bytes = self._left = max_bytes

    def write(self, data: bytes, /) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise errors.LimitExceeded(f"the layer has more than {self._max_bytes} bytes; {_LESS}")
        self._held += data
        if len(self._held) >= streams.CHUNK_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        self._sink.write(bytes(self._held))
        self._held.clear()


# The walk -------------------------------------------------------------------------------------------------------------


def _walk(folder: int, path: str, leave_out: Collection[str]) -> Iterator[tuple[_Item, BinaryIO | None]]:
    """Every entry below, folders before what is in them, names in the order of their bytes; files come opened."""
    prefix = f"{path}/" if path else ""
    for name in descriptors.names(folder):
        inner = prefix + name
        if inner in leave_out:
            continue
        with contextlib.suppress(FileNotFoundError):  # whoever runs in it has removed it since
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            _check(inner, name, found)
            if stat.S_ISDIR(found.st_mode):
                with _opened(folder, name) as fd:
                    yield _folder_item(fd, inner), None
                    yield from _walk(fd, inner, leave_out)
            elif stat.S_ISREG(found.st_mode):
                yield from _file(folder, name, inner)
            elif not stat.S_ISSOCK(found.st_mode):  # which ends with whoever listens to it
                yield _special(folder, name, inner, found), None


def _file(folder: int, name: str, path: str) -> Iterator[tuple[_Item, BinaryIO]]:
    # Without waiting: what was a file a moment ago may be a pipe by now.
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise errors.InvalidImage(f"/{path}: became something else while it was read; try again")
        yield _Item(path=path, found=found, xattrs=_kept(os.listxattr(fd), fd, path)), file


def _special(folder: int, name: str, path: str, found: os.stat_result) -> _Item:
    if _is_whiteout(found):
        return _Item(path=f"{path[: len(path) - len(name)]}{WHITEOUT}{name}", found=found)
    link = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(found.st_mode) else ""
    return _Item(path=path, found=found, link=link)


def _folder_item(fd: int, path: str) -> _Item:
    names = os.listxattr(fd)
    opaque = _OPAQUE_XATTR in names and os.getxattr(fd, _OPAQUE_XATTR) == b"y"
    return _Item(path=path, found=os.fstat(fd), xattrs=_kept(names, fd, path), opaque=opaque)


def _kept(names: list[str], fd: int, path: str) -> dict[str, bytes]:
    _check_whole(names, path)
    if steering := next((name for name in names if name.startswith("user.overlay.")), None):
        raise errors.InvalidImage(f"/{path}: the attribute {steering:.60} would steer overlayfs; remove it")
    found = {name: os.getxattr(fd, name) for name in sorted(names) if name in KEPT_XATTRS or name.startswith("user.")}
    if sum(len(name) + len(value) for name, value in found.items()) > _MAX_XATTR_BYTES:
        raise errors.LimitExceeded(f"/{path}: has more than {_MAX_XATTR_BYTES} bytes of attributes; remove some")
    return found


def _check(path: str, name: str, found: os.stat_result) -> None:
    if name.startswith(WHITEOUT):
        raise errors.InvalidImage(
            f"/{path}: a name that begins with {WHITEOUT} means a removed file in a layer; choose another name"
        )
    raw = os.fsencode(path)
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        raise errors.InvalidImage(f"/{path!r:.300}: a name with a control character cannot be in an image; rename it")
    check_length(path)
    if (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)) and not _is_whiteout(found):
        numbers = (os.major(found.st_rdev), os.minor(found.st_rdev))
        if stat.S_ISBLK(found.st_mode) or numbers not in HARMLESS_DEVICES:
            raise errors.InvalidImage("/{}: device {}:{} cannot be in an image; remove it".format(path, *numbers))


# Entries --------------------------------------------------------------------------------------------------------------


def _write_item(sink: streams.Sink, item: _Item, content: BinaryIO | None, seen: dict[tuple[int, int], str]) -> None:
    found, name = item.found, item.path.rpartition("/")[2]
    if name.startswith(WHITEOUT):
        tarwrite.write_member(sink, _whiteout(item.path))
        return
    info = _described(item)
    first = seen.setdefault((found.st_dev, found.st_ino), item.path) if found.st_nlink > 1 else item.path
    if content is not None and first == item.path:
        _write_content(sink, info, content, found.st_size)
    elif content is not None:
        info.type, info.linkname, info.pax_headers = tarfile.LNKTYPE, first, {}
        tarwrite.write_member(sink, info)
    else:
        tarwrite.write_member(sink, info)
    if item.opaque:
        tarwrite.write_member(sink, _whiteout(OPAQUE if item.path == "." else f"{item.path}/{OPAQUE}"))


def _write_content(sink: streams.Sink, info: tarfile.TarInfo, content: BinaryIO, size_bytes: int) -> None:
    """The file, without its zeros when these are most of it: told by what it holds, not by how a disk keeps it."""
    if size_bytes >= _SPARSE_FROM_BYTES:
        pieces = sparse.pieces(content.fileno(), size_bytes)
        if 2 * sum(length for _, length in pieces) < size_bytes and len(pieces) < tarheader.MAX_SPARSE_SEGMENTS:
            tarwrite.write_sparse(sink, info, content, pieces, size_bytes)
            return
    tarwrite.write_file(sink, info, content)


def _described(item: _Item) -> tarfile.TarInfo:
    found = item.found
    info = tarfile.TarInfo(item.path)
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = found.st_mtime_ns // _SECOND_NS
    match stat.S_IFMT(found.st_mode):
        case stat.S_IFDIR:
            info.type = tarfile.DIRTYPE
        case stat.S_IFLNK:
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, item.link, 0o777
        case stat.S_IFIFO:
            info.type = tarfile.FIFOTYPE
        case stat.S_IFCHR:
            info.type = tarfile.CHRTYPE
            info.devmajor, info.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        case _:
            info.type = tarfile.REGTYPE
    # tarfile encodes PAX values as UTF-8; bytes that are none survive as surrogates, which it knows to mark.
    info.pax_headers = {f"{_PAX_XATTR}{key}": os.fsdecode(value) for key, value in item.xattrs.items()}
    return info


def _whiteout(path: str) -> tarfile.TarInfo:
    """A mark, without times or owners of its own: the kernel's devices have those of the moment."""
    info = tarfile.TarInfo(path)
    info.mode = 0
    return info


# Settling -------------------------------------------------------------------------------------------------------------


def _forget_overlay(folder: int, name: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode) or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    with descriptors.closing(fd):
        names = os.listxattr(fd)
        _check_whole(names, name)
        for key in names:
            if key.startswith(_OVERLAY_XATTRS) and key != _OPAQUE_XATTR:
                os.removexattr(fd, key)


def _check_whole(names: list[str], path: str) -> None:
    if note := next((key for key in names if key in _UNSUPPORTED_XATTRS), None):
        raise errors.StorageFailed(
            f"the kernel keeps {path!r:.100} as a note on another layer ({note}); load the module overlay with "
            "redirect_dir=off metacopy=off"
        )


def _set_time(found: os.stat_result, epoch_s: int | None, name: str, folder: int) -> None:
    whole = found.st_mtime_ns // _SECOND_NS
    wanted = whole if epoch_s is None else min(whole, epoch_s)
    if wanted * _SECOND_NS != found.st_mtime_ns:
        os.utime(name, ns=(found.st_atime_ns, wanted * _SECOND_NS), dir_fd=folder, follow_symlinks=False)


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


@contextlib.contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    fd = os.open(name, _FOLDER, dir_fd=folder)
    with descriptors.closing(fd):
        yield fd

"""COPY and ADD, once it is known what comes from where: into a tree, with Docker's rules for names.

A folder's contents go into the target; a file goes to the target, or into it when the target ends with a slash or is a
folder. Owners are root's unless `--chown` says otherwise or the source is a stage or an image; modes and times are the
source's. The target folder itself keeps its own looks, or is made as one that nobody describes (0755); folders further
down get those of the source.

The rule: everything is written by a `TreeWriter`, and read by the descriptors of a `sources.Tree`.
"""

from __future__ import annotations

import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from images import errors
from images.build import archives, quantities, sources
from images.build.owners import Owner
from images.build.tree_writer import Looks, TreeWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from images.build.sources import Entry, Picked

_FOLDER_MODE = 0o755
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that an address gave: where it lies, and what it is called."""

    path: Path
    name: str
    mtime_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file whose text stands in the Dockerfile."""

    name: str
    content: bytes


Source: TypeAlias = sources.Picked | Fetched | Written


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One COPY or ADD. `target` is absolute; a slash at its end, or `into_folder`, says that it is a folder.

    `pivots` are, with `parents`, how much of each source's path is left out at the target.
    """

    sources: tuple[Source, ...]
    target: str
    owner: Owner | None = None
    mode: str = ""
    parents: bool = False
    pivots: tuple[int, ...] = ()
    unpacks: bool = False
    keeps_top: bool = False  # a new target folder looks like the source, as a mount has it

    @property
    def names_folder(self) -> bool:
        return self.target.endswith(("/", "/.", "/.."))


def carry_out(order: Order, root: int, *, what: str) -> None:
    """Write everything below `root`; `InvalidImage` names the file that cannot be written."""
    if len(order.sources) > 1 and not order.names_folder and not order.parents:
        raise errors.InvalidImage(
            f"{what}: {len(order.sources)} sources go to {order.target!r:.200}, which must then end with a slash"
        )
    writer = TreeWriter(root, what=what)
    for number, source in enumerate(order.sources):
        _Copier(order, writer, pivot=order.pivots[number] if order.pivots else 0).copy(source)
    writer.finish()


class _Copier:
    """The way of one source."""

    def __init__(self, order: Order, writer: TreeWriter, *, pivot: int) -> None:
        self._order = order
        self._writer = writer
        self._pivot = pivot
        self._top = posixpath.normpath(order.target).strip("/")
        self._first: dict[tuple[int, int], str] = {}

    def copy(self, source: Source) -> None:
        match source:
            case sources.Picked():
                self._picked(source)
            case Fetched():
                self._fetched(source)
            case Written():
                looks = self._looks(0o644, (0, 0), None)
                self._writer.file(self._place(source.name), [source.content], looks)

    def _fetched(self, source: Fetched) -> None:
        fd = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._writer.file(self._place(source.name), fd, self._looks(0o600, (0, 0), source.mtime_s))
        finally:
            os.close(fd)

    def _picked(self, picked: Picked) -> None:
        base = ""
        for entry in sources.walk(picked):
            if not entry.path:
                if self._unpacked(entry):
                    return
                base = self._begin(picked, entry)
            self._entry(entry, f"{base}/{entry.path}".strip("/") if entry.path else base)

    def _begin(self, picked: Picked, entry: Entry) -> str:
        """Where the source itself goes, with the folders above it made."""
        is_folder = stat.S_ISDIR(entry.found.st_mode)
        if self._order.parents:
            kept = picked.path.split("/")[self._pivot :]
            self._writer.folders("/".join([self._top, *kept[:-1]]), self._made())
            return "/".join(part for part in (self._top, *kept) if part)
        if is_folder:
            self._writer.folders(posixpath.dirname(self._top) if self._order.keeps_top else self._top, self._made())
            return self._top
        return self._place(picked.name)

    def _place(self, name: str) -> str:
        """The path of a file, in the target or in its place."""
        if self._order.names_folder or self._writer.is_folder(self._top):
            self._writer.folders(self._top, self._made())
            return f"{self._top}/{name}".strip("/")
        self._writer.folders(posixpath.dirname(self._top), self._made())
        return self._top

    def _unpacked(self, entry: Entry) -> bool:
        """Whether it was an archive that ADD takes apart; then it is in the target."""
        if not self._order.unpacks or not stat.S_ISREG(entry.found.st_mode):
            return False
        fd = entry.open()
        with os.fdopen(fd, "rb") as file:
            if not archives.is_archive(file):
                return False
            self._writer.folders(self._top, self._made())
            owner = self._order.owner
            archives.unpack(file, self._writer, self._top, owner=owner, what=f"{entry.tree.title}: {entry.name}")
        return True

    # Entries ----------------------------------------------------------------------------------------------------------

    def _entry(self, entry: Entry, path: str) -> None:
        found = entry.found
        is_folder = stat.S_ISDIR(found.st_mode)
        looks = self._looks(entry.mode, entry.owner, found.st_mtime_ns // _SECOND_NS, is_folder=is_folder)
        match stat.S_IFMT(found.st_mode):
            case stat.S_IFDIR:
                self._folder(entry, path, looks)
            case stat.S_IFREG:
                self._file(entry, path, looks)
            case stat.S_IFLNK:
                self._writer.link(path, entry.link, looks)
            case stat.S_IFIFO | stat.S_IFCHR | stat.S_IFBLK as kind:
                self._writer.node(path, kind, found.st_rdev, looks)
            case _:
                assert stat.S_ISSOCK(found.st_mode), "sockets are not walked to, and there is no other kind"

    def _folder(self, entry: Entry, path: str, looks: Looks) -> None:
        fd = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.parent)
        try:
            looks = _with_xattrs(looks, entry.xattrs(fd))
        finally:
            os.close(fd)
        if path:
            self._writer.folder(path, looks, described=bool(entry.path))

    def _file(self, entry: Entry, path: str, looks: Looks) -> None:
        key = (entry.found.st_dev, entry.found.st_ino)
        first = self._first.setdefault(key, path) if entry.found.st_nlink > 1 else path
        if first != path:
            self._writer.hardlink(path, first)
            return
        fd = entry.open()
        try:
            self._writer.file(path, fd, _with_xattrs(looks, entry.xattrs(fd)))
        finally:
            os.close(fd)

    def _looks(self, mode: int, owner: tuple[int, int], mtime_s: int | None, *, is_folder: bool = False) -> Looks:
        wanted = self._order.owner
        uid, gid = (wanted.uid, wanted.gid) if wanted is not None else owner
        return Looks(mode=self._mode(mode, is_folder=is_folder), uid=uid, gid=gid, mtime_s=mtime_s)

    def _mode(self, mode: int, *, is_folder: bool) -> int:
        return quantities.mode(self._order.mode).of(mode, is_folder=is_folder) if self._order.mode else mode

    def _made(self) -> Looks:
        """What folders look like that nothing but their being needed describes."""
        owner = self._order.owner or Owner()
        return Looks(mode=_FOLDER_MODE, uid=owner.uid, gid=owner.gid)


def _with_xattrs(looks: Looks, xattrs: dict[str, bytes]) -> Looks:
    return Looks(mode=looks.mode, uid=looks.uid, gid=looks.gid, mtime_s=looks.mtime_s, xattrs=xattrs)


def fingerprint(order: Order) -> Sequence[str]:
    """What decides over the result beside the tree it is written to, and the owner."""
    found = [f"{order.target} {order.mode} {order.parents} {order.pivots} {order.unpacks}"]
    for source in order.sources:
        match source:
            case sources.Picked():
                found.append(f"{source.path} {sources.fingerprint(source)}")
            case Fetched():
                found.append(f"{source.name} {archives.file_digest(source.path)}")
            case Written():
                found.append(f"{source.name} {source.content!r}")
    return found

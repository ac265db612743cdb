"""Where COPY takes files from: the context, a stage or an image, as a tree that is only read.

Rules. A path is resolved as if the tree's root were `/`, so no link inside leads out of it; what is found is walked by
descriptors. What `.dockerignore` excludes does not exist: that is asked of the path a file really has, after links. The
order is that of the names' bytes, so equal trees are walked alike everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from images import errors
from images.build import descriptors, globs, layerdiff, views
from runtime import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
MAX_ENTRIES = 1_000_000
_HASH_CHUNK = 1 << 20


class Excludes(Protocol):
    """What `images.build.ignore` reads from a list of patterns."""

    def excludes(self, path: str) -> bool: ...

    def may_include_below(self, folder: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A root to read from. Without `keeps_owners` everything in it counts as root's."""

    fd: int
    title: str
    keeps_owners: bool = True
    ignored: Excludes | None = None
    # Digests of contents by device, inode, size and time, for as long as one build takes.
    known: dict[tuple[int, ...], bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """One source: the path as it was matched, and the path that it really has."""

    tree: Tree
    path: str
    real: str
    excludes: tuple[Excludes, ...] = ()

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A name in the folder `parent`; `path` is relative to what was picked, "" for that itself."""

    tree: Tree
    parent: int
    name: str
    path: str
    found: os.stat_result

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.found.st_mode)

    @property
    def owner(self) -> tuple[int, int]:
        return (self.found.st_uid, self.found.st_gid) if self.tree.keeps_owners else (0, 0)

    @property
    def link(self) -> str:
        return os.readlink(self.name, dir_fd=self.parent)

    def open(self) -> int:
        """A descriptor to read a file's content from; `InvalidImage` when it is no file any more."""
        fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise errors.InvalidImage(f"{self.tree.title}: {self.name!r:.200} changed while it was read; try again")
        return fd

    def xattrs(self, fd: int) -> dict[str, bytes]:
        """What goes along with a file. A person's own files carry notes of other programs, which stay behind."""
        wanted = ("user.",) if self.tree.keeps_owners else ()
        names = (name for name in os.listxattr(fd) if name in layerdiff.KEPT_XATTRS or name.startswith(wanted))
        return {name: os.getxattr(fd, name) for name in sorted(names)}


# Finding --------------------------------------------------------------------------------------------------------------


def pick(tree: Tree, pattern: str, excludes: Sequence[Excludes] = ()) -> list[Picked]:
    """What a source of COPY names; `NotFound` when there is nothing. Patterns are those of `globs`."""
    parts = [part for part in _clean(pattern).split("/") if part]
    found = [""]
    for part in parts:
        found = [path for above in found for path in _step(tree, above, part)]
    picked = [
        Picked(tree=tree, path=path, real=views.real_path(tree.fd, path), excludes=tuple(excludes)) for path in found
    ]
    present = [one for one in picked if _is_present(one)]
    if not present:
        why = "; .dockerignore excludes it" if picked else ""
        raise errors.NotFound(f"{tree.title}: no file {pattern!r:.200}{why}")
    return present


def _clean(pattern: str) -> str:
    """Below the root, whatever it says: `../x` is `x`, as `/../x` is `/x`."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _step(tree: Tree, above: str, part: str) -> Iterator[str]:
    prefix = f"{above}/" if above else ""
    if not any(mark in part for mark in "*?[\\"):
        if _exists(tree, prefix + part):
            yield prefix + part
        return
    try:
        fd = views.locate(tree.fd, above, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with descriptors.closing(fd):
        names = descriptors.names(fd)
    yield from (prefix + name for name in names if globs.match(part, name))


def _exists(tree: Tree, path: str) -> bool:
    try:
        os.close(views.locate(tree.fd, path))
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise
        return False
    return True


def _is_present(picked: Picked) -> bool:
    """Whether what was named is not excluded: of a folder, at least something below it."""
    if not picked.real:
        return True
    with descriptors.closing(views.locate_unfollowed(picked.tree.fd, picked.real)) as fd:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
    return not (_is_hidden if is_folder else _is_left_out)(picked, picked.real)


def _is_hidden(picked: Picked, path: str) -> bool:
    """Whether a path of the tree is excluded, and everything below it as well."""
    inside = path[len(picked.real) :].strip("/")
    ignored = picked.tree.ignored
    if ignored is not None and ignored.excludes(path) and not ignored.may_include_below(path):
        return True
    return any(
        rules.excludes(name) and not rules.may_include_below(name)
        for rules in picked.excludes
        for name in {path, inside} - {""}
    )


def _is_left_out(picked: Picked, path: str) -> bool:
    """Whether a path that is no folder is excluded."""
    inside = path[len(picked.real) :].strip("/")
    ignored = picked.tree.ignored
    if ignored is not None and ignored.excludes(path):
        return True
    return any(rules.excludes(name) for rules in picked.excludes for name in {path, inside} - {""})


# Walking --------------------------------------------------------------------------------------------------------------


def walk(picked: Picked) -> Iterator[Entry]:
    """What was picked, then everything below it, each folder before what is in it."""
    above, _, name = picked.real.rpartition("/")
    parent = syscalls.openat2(picked.tree.fd, above or ".", _FOLDER, resolve=_BENEATH)
    with descriptors.closing(parent):
        found = os.stat(name or ".", dir_fd=parent, follow_symlinks=False)
        top = Entry(tree=picked.tree, parent=parent, name=name or ".", path="", found=found)
        yield top
        if stat.S_ISDIR(found.st_mode):
            yield from _below(picked, top)


def _below(picked: Picked, folder: Entry) -> Iterator[Entry]:
    fd = os.open(folder.name, _FOLDER | os.O_CLOEXEC, dir_fd=folder.parent)
    with descriptors.closing(fd):
        for name in descriptors.names(fd):
            path = f"{folder.path}/{name}" if folder.path else name
            real = f"{picked.real}/{path}" if picked.real else path
            entry = Entry(
                tree=picked.tree, parent=fd, name=name, path=path, found=os.stat(name, dir_fd=fd, follow_symlinks=False)
            )
            if stat.S_ISDIR(entry.found.st_mode):
                layerdiff.check_length(path)
                if not _is_hidden(picked, real):
                    yield from _folder(picked, entry, left_out=_is_left_out(picked, real))
            elif not _is_left_out(picked, real) and not stat.S_ISSOCK(entry.found.st_mode):
                yield entry


def _folder(picked: Picked, entry: Entry, *, left_out: bool) -> Iterator[Entry]:
    """A folder and what is in it; one that is excluded itself comes only with something that is not."""
    below = _below(picked, entry)
    if left_out:
        first = next(below, None)
        if first is None:
            return
        yield entry
        yield first
    else:
        yield entry
    yield from below


# Contents -------------------------------------------------------------------------------------------------------------


def fingerprint(picked: Picked) -> str:
    """What a copy of it would hold: names, kinds, modes, owners, links, attributes and bytes; no times."""
    digest = hashlib.sha256()
    linked: dict[tuple[int, int], str] = {}
    for number, entry in enumerate(walk(picked)):
        if number > MAX_ENTRIES:
            raise errors.LimitExceeded(f"{picked.tree.title}: more than {MAX_ENTRIES} files below {picked.path!r:.200}")
        for value in _facts(entry, linked):
            digest.update(len(value).to_bytes(8, "big") + value)
    return digest.hexdigest()


def _facts(entry: Entry, linked: dict[tuple[int, int], str]) -> Iterator[bytes]:
    found = entry.found
    yield os.fsencode(entry.path)
    yield "{:o} {} {}".format(found.st_mode, *entry.owner).encode()
    if stat.S_ISLNK(found.st_mode):
        yield os.fsencode(entry.link)
    elif stat.S_ISREG(found.st_mode):
        if found.st_nlink > 1:
            yield os.fsencode(linked.setdefault((found.st_dev, found.st_ino), entry.path))
        yield content_digest(entry)
    elif stat.S_ISDIR(found.st_mode):
        with descriptors.closing(os.open(entry.name, _FOLDER | os.O_CLOEXEC, dir_fd=entry.parent)) as fd:
            yield repr(entry.xattrs(fd)).encode()
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        yield str(found.st_rdev).encode()


def content_digest(entry: Entry) -> bytes:
    """The sha256 of a file's attributes and bytes; read once in a build."""
    found = entry.found
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    known = entry.tree.known
    if key not in known:
        fd = entry.open()
        with os.fdopen(fd, "rb", buffering=0) as file:
            digest = hashlib.sha256(repr(entry.xattrs(fd)).encode())
            while data := file.read(_HASH_CHUNK):
                digest.update(data)
        known[key] = digest.digest()
    return known[key]


@contextlib.contextmanager
def opened(path: str, make: Callable[[int], Tree]) -> Iterator[Tree]:
    """A folder of this machine as a tree."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with descriptors.closing(fd):
        yield make(fd)

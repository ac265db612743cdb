"""Work in progress: files and folders below `tmp/` that vanish with the process that made them.

The rule: whoever makes one holds a lock on it until it was renamed into its place or removed. So one without a lock
belonged to a process that died, and `sweep` removes it. A descriptor that a child inherits keeps the lock as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from images import disk, errors, locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LOCK_TIMEOUT_S = 10.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SWEEP_BATCH = 64  # descriptors held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or folder of ours and its locked descriptor."""

    path: Path
    fd: int


@contextlib.contextmanager
def file(area: Path) -> Iterator[Item]:
    """A new empty file, open for reading and writing; gone after the block unless it was renamed away."""

    def make(path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    with _locked_item(area, make) as item:
        try:
            yield item
        finally:
            remove(item.path)


@contextlib.contextmanager
def folder(area: Path) -> Iterator[Item]:
    """A new empty folder; gone after the block unless it was renamed away."""

    def make(path: Path) -> int:
        path.mkdir(mode=0o700)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    with _locked_item(area, make) as item:
        try:
            yield item
        finally:
            remove(item.path)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Item]:
    """A new empty folder `.NAME.part` beside `target`, to be renamed into its place; else it is gone after the block.

    What a process that died has left of an earlier one is removed first. `Busy` while another one lives.
    """
    area = target.absolute().parent
    path = area / f".{target.name}.part"
    with disk.storage_errors(f"making {path}"), _area_lock(area, shared=False):
        _clear(path, target)
        path.mkdir(mode=0o700)
        fd = os.open(path, _FOLDER)
        locks.attempt(fd)
    try:
        yield Item(path=path, fd=fd)
    finally:
        remove(path)
        os.close(fd)


def _clear(path: Path, target: Path) -> None:
    dead = _lock_dead(path)
    if dead is not None:
        remove(path)
        os.close(dead)
    elif path.exists():
        raise errors.Busy(f"{target} is being written by another process; wait for it, or name another place")


def sweep(area: Path, *, first: Callable[[Path], None] = lambda _: None) -> int:
    """Remove what dead processes left, with `first` done to each; returns how many items."""
    removed = 0
    while dead := _claim(area):
        with contextlib.ExitStack() as locked:
            for item in dead:
                locked.callback(os.close, item.fd)
            for item in dead:
                first(item.path)
                remove(item.path)
        removed += len(dead)
    return removed


def remove(path: Path) -> None:
    """Remove a file or a whole tree, however deep; one that is gone already is no error."""
    with disk.storage_errors(f"removing {path}"), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            _empty(path)
            path.rmdir()
        else:
            path.unlink()


def _empty(path: Path) -> None:
    """Remove what is in a folder. A command may nest folders as deep as it likes, so this walks without recursion.

    Two descriptors do for any depth: the way up is `..`, and it must lead to where we came from.
    """
    fd = os.open(path, _FOLDER)
    way: list[tuple[os.stat_result, list[str]]] = []
    try:
        left = _folders_left(fd)
        while left or way:
            if left:
                way.append((os.fstat(fd), left))
                fd = _moved(fd, left[-1])
                left = _folders_left(fd)
            else:
                fd = _moved(fd, "..")
                expected, left = way.pop()
                if not os.path.samestat(os.fstat(fd), expected):
                    raise errors.StorageFailed(f"{path}: a folder in it was moved while it was removed; try again")
                os.rmdir(left.pop(), dir_fd=fd)
    finally:
        os.close(fd)


def _moved(fd: int, name: str) -> int:
    """From an open folder to the one of that name."""
    reached = os.open(name, _FOLDER, dir_fd=fd)
    os.close(fd)
    return reached


def _folders_left(fd: int) -> list[str]:
    """The folders in a folder, once all else in it is removed."""
    with os.scandir(fd) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
    return [name for name, is_folder in entries if is_folder]


@contextlib.contextmanager
def _locked_item(area: Path, make: Callable[[Path], int]) -> Iterator[Item]:
    path = area / secrets.token_hex(16)
    # Between making an item and locking it, a sweep would take it for a dead one: the two exclude each other.
    with disk.storage_errors(f"making a work file below {area}"), _area_lock(area, shared=True):
        fd = make(path)
        locked = locks.attempt(fd)
    assert locked, "nobody else knows this name"
    try:
        yield Item(path=path, fd=fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _area_lock(area: Path, *, shared: bool) -> Iterator[None]:
    fd = os.open(area, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        locks.wait(fd, shared=shared, timeout_s=_LOCK_TIMEOUT_S, what=f"the work folder {area}")
        yield
    finally:
        os.close(fd)


def _claim(area: Path) -> list[Item]:
    """Lock some of the dead, so that no second sweep removes them at the same time."""
    claimed: list[Item] = []
    with _area_lock(area, shared=False):
        for path in area.iterdir():
            fd = _lock_dead(path)
            if fd is not None:
                claimed.append(Item(path=path, fd=fd))
            if len(claimed) == _SWEEP_BATCH:
                break
    return claimed


def _lock_dead(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.StorageFailed(f"work folder entry {path} cannot be opened: {error.strerror}; remove it") from error
    if locks.attempt(fd):
        return fd
    os.close(fd)
    return None

"""Who a process in a container runs as: an image's USER, looked up in the container's own files.

The files are the image's, so they are not trusted: only regular files of a bounded size are read, without waiting.
Python's `pwd` and `grp` are never used, since they load the host's name services.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

from runtime import errors, syscalls
from runtime.spec import MAX_ID, User
from runtime.values import frozen

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_MAX_DIGITS: Final = 20
PASSWD, GROUP = "/etc/passwd", "/etc/group"


@frozen
class Identity:
    """User and groups in numbers, and the home folder."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(user: User) -> Identity:
    """Look the user up. To be called with the container's root as the process's root."""
    return identify(user, read_table(PASSWD), read_table(GROUP) if user.username else "")


def identify(user: User, passwd: str, group: str) -> Identity:
    """The identity, given the text of the two files."""
    if not user.username:
        entry = _find(_rows(passwd, 7), "", user.uid)
        home = entry[5] if entry else "/"
        return Identity(uid=user.uid, gid=user.gid, groups=user.additional_gids, home=home or "/")
    name, colon, group_name = user.username.partition(":")
    entry = _find(_rows(passwd, 7), name, _number(name))
    if entry is None and _number(name) is None:
        raise _unknown("user", name, PASSWD)
    uid = int(entry[2]) if entry else _number(name)
    assert uid is not None
    gid = _group_id(group_name, group) if colon else (int(entry[3]) if entry else 0)
    # As Docker has it: a group that was given stands alone; else the user's own entries in /etc/group count.
    member_of = () if colon or entry is None else _groups_of(entry[0], group)
    groups = tuple(dict.fromkeys((*member_of, *user.additional_gids)))
    return Identity(uid=uid, gid=gid, groups=groups, home=(entry[5] if entry else "") or "/")


def _group_id(name: str, group: str) -> int:
    number = _number(name)
    entry = _find(_rows(group, 3), name, None)
    if entry is not None:
        return int(entry[2])
    if number is None:
        raise _unknown("group", name, GROUP)
    return number


def _groups_of(name: str, group: str) -> tuple[int, ...]:
    return tuple(int(row[2]) for row in _rows(group, 4) if name in row[3].split(","))


def _unknown(what: str, name: str, path: str) -> errors.SetupFailed:
    return errors.SetupFailed(f"user: there is no {what} {name!r} in the container's {path}", step="user")


def _number(text: str) -> int | None:
    """A user or group id as a number; None for a name. Digits beyond the range are refused, never cut."""
    if not (text.isascii() and text.isdigit()):
        return None
    if not _is_id(text):
        raise errors.InvalidSpec(f"process.user.username: {text[:20]} is above the highest id {MAX_ID}")
    return int(text)


def _is_id(text: str) -> bool:
    """Whether it is a user or group id. Python refuses to read numbers of thousands of digits, so these come first."""
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= MAX_ID


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """The well-formed rows of a table; what is malformed does not exist, as for the C library."""
    for line in text.splitlines():
        row = line.split(":")
        ids = row[2:4] if columns == 7 else row[2:3]
        if len(row) >= columns and all(_is_id(cell) for cell in ids):
            yield row


def _find(rows: Iterator[list[str]], name: str, number: int | None) -> list[str] | None:
    """The row with this name, else the first with this number."""
    by_number = None
    for row in rows:
        if name and row[0] == name:
            return row
        if by_number is None and number is not None and int(row[2]) == number:
            by_number = row
    return by_number


def read_table(path: str, root: int = syscalls.AT_FDCWD, resolve: int = syscalls.RESOLVE_NO_MAGICLINKS) -> str:
    """The text of a file of the container, by default from inside; "" when it has none."""
    # The reader has the host's privileges still: a link of the image must lead neither to what the runtime has open
    # nor to what procfs shows to root only, such as the kernel's log, which is gone once it is read.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    with errors.step(f"user: read the container's {path}"):
        try:
            fd = syscalls.openat2(root, path, flags, resolve=resolve)
        except (FileNotFoundError, NotADirectoryError):
            return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or syscalls.fstatfs_type(fd) == syscalls.PROC_SUPER_MAGIC:
            raise errors.SetupFailed(f"user: the container's {path} is not a regular file", step="user")
        if status.st_size > MAX_FILE_BYTES:
            raise errors.SetupFailed(f"user: the container's {path} is above {MAX_FILE_BYTES} bytes", step="user")
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)

"""`--chown` and USER in numbers, by the image's own /etc/passwd and /etc/group.

The rule: this machine's users play no part, and a file that is no regular file (a pipe would make us wait, a device
would answer) is refused. The reading is the runtime's, which does the same for containers.
"""

from __future__ import annotations

from dataclasses import dataclass

from images import errors
from images.build import quantities
from runtime import errors as runtime_errors
from runtime import syscalls, users
from runtime.spec import User

_IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A user and a group in numbers."""

    uid: int = 0
    gid: int = 0


def is_numeric(text: str) -> bool:
    """Whether an owner says itself who it is, so that no file is needed."""
    name, colon, group = text.partition(":")
    return all(part.isascii() and part.isdigit() for part in ((name, group) if colon else (name,)))


def look_up(text: str, root: int | None, *, what: str = "--chown=") -> Owner:
    """`app`, `app:app`, `1000`, `1000:50`: a lone number owns with the group of the same number, as Docker has it.

    `root` is the image's tree, or None where there is none and only numbers will do. `what` is who says so.
    """
    if is_numeric(text):
        name, colon, group = text.partition(":")
        uid = quantities.whole_number(name, most=_MAX_ID)
        gid = quantities.whole_number(group if colon else name, most=_MAX_ID)
        if uid is None or gid is None:
            raise errors.InvalidImage(f"{what}{text!r:.100}: ids go up to {_MAX_ID}")
        return Owner(uid=uid, gid=gid)
    if root is None:
        raise errors.InvalidImage(f"{what}{text!r:.100}: names need files to be looked up in; give numbers")
    return _by_name(text, root, what)


_MAX_ID = 2**32 - 2


def _by_name(text: str, root: int, what: str) -> Owner:
    try:
        passwd = users.read_table("etc/passwd", root, _IN_ROOT)
        group = users.read_table("etc/group", root, _IN_ROOT)
        found = users.identify(User(uid=0, gid=0, username=text), passwd, group)
    except runtime_errors.ContainerError as error:
        raise errors.InvalidImage(f"{what}{text!r:.100}: {error.message}") from error
    return Owner(uid=found.uid, gid=found.gid)

"""The programs that were compiled already: in this process's memory, and in a folder beside the containers.

    <root>/@seccomp/<digest of the profile>       {"digest", "format", "library", "checksum"}, a line's end, the program

The folder is its owner's alone. A file is written whole or not at all, and is not believed: one that is damaged, that
anybody else could have written, or that another libseccomp made, is as if it were not there. Whoever needs a program
makes it then, so nothing here has to be kept.
"""

import contextlib
import json
import os
import stat
from typing import Any, Final

from runtime.seccomp import profile as profiles
from runtime.seccomp.profile import Profile

FOLDER: Final = "@seccomp"
"""No container's id, as "@" is not allowed in one."""
MAX_FILES: Final = 256

_FORMAT: Final = 2
"""To be raised when `library`, `newer` or `compact` make another program of the same profile."""
_MAX_BYTES: Final = 64 * 1024  # the kernel takes 4,096 instructions of 8 bytes
_memory: dict[str, bytes] = {}


def program(profile: Profile, root: str) -> bytes:
    """The profile's program, compiled if need be; raises InvalidSpec where libseccomp cannot do what is asked.

    Compiling takes memory that the process does not give back: call it in one that executes a program soon.
    """
    found = known(profile, root)
    if found is not None:
        return found
    from runtime.seccomp import library  # only here: a process that finds its program never needs it

    made = library.compile_profile(profile)
    with contextlib.suppress(OSError):  # a full disk, say: the next one compiles again
        _write(_path(profile, root), made)
    return made


def known(profile: Profile, root: str) -> bytes | None:
    """The profile's program if it was compiled before."""
    return _memory.get(profile.digest) or _read(_path(profile, root))


def remember(profile: Profile, root: str) -> None:
    """Have the program in this process's memory, and so in that of its forks; no error when it cannot be had."""
    pid = os.fork()
    if pid == 0:
        try:
            program(profile, root)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    found = _read(_path(profile, root))
    if found is not None:
        _memory[profile.digest] = found


def _path(profile: Profile, root: str) -> str:
    return os.path.join(root, FOLDER, profile.digest)


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        content = os.read(fd, _MAX_BYTES)
    finally:
        os.close(fd)
    head, _, body = content.partition(b"\n")
    try:
        told = json.loads(head)
    except ValueError:
        return None
    library = told.get("library") if isinstance(told, dict) else None
    if not body or not isinstance(library, list) or not library:
        return None
    return body if told == _head(os.path.basename(path), str(library[0]), body) else None


def _head(digest: str, library: str, body: bytes) -> dict[str, Any]:
    """What the first line must say, in JSON. It names the profile too: a file under another's name is not believed."""
    checksum = profiles.digest(body)
    return {"digest": digest, "format": _FORMAT, "library": _identity(library), "checksum": checksum}


def _identity(path: str) -> list[Any]:
    """A file that was replaced since has another one."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [path, status.st_ino, status.st_size, status.st_mtime_ns]


def _write(path: str, body: bytes) -> None:
    folder = os.path.dirname(path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    _make_room(folder)
    head = _head(os.path.basename(path), _library_path(), body)
    beside = f"{path}.{os.getpid()}"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(head).encode() + b"\n" + body)  # what was cut short is found out when it is read
    finally:
        os.close(fd)
    os.rename(beside, path)


def _library_path() -> str:
    """Where the dynamic loader found it."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = (line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/libseccomp.so" in line)
        return next(paths, "")


def _make_room(folder: str) -> None:
    """Profiles that people wrote come and go; the oldest files go."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in entries[: max(len(entries) + 1 - MAX_FILES, 0)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry.path)

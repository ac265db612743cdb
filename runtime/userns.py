"""User namespaces: making one, reading its mappings, and going on inside it.

Two rules. What needs the host's privileges is done before a process enters, since there is no way back. And whatever
a container's process makes before its program runs belongs to the container's root.
"""

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Iterable, Iterator
from typing import Final, Self

from runtime import errors, forks, namespaces, protocol, syscalls
from runtime.spec import Spec, mappings
from runtime.spec.mappings import IdMaps
from runtime.values import frozen

_STEP: Final = "linux.namespaces: user"


@frozen
class Owner:
    """The user namespace that a container belongs to: an open descriptor, and what it maps."""

    fd: int
    maps: IdMaps
    joined: str = ""  # the path that it was found at

    @classmethod
    def of(cls, spec: Spec) -> Self | None:
        """The namespace that the configuration asks for, made if it is a new one."""
        wanted = spec.user_namespace
        if wanted is None:
            return None
        with errors.step(_STEP):
            if not wanted.path:
                assert spec.id_maps is not None, "a new user namespace without mappings"
                return cls(fd=make(spec.id_maps), maps=spec.id_maps)
            fd = os.open(wanted.path, os.O_RDONLY | os.O_CLOEXEC)
            # What was given with a path is believed until `enter` sees: asking the namespace takes a process.
            return cls(fd=fd, maps=spec.id_maps or _read_maps(fd), joined=wanted.path)

    def make_files_as_root(self) -> None:
        """From here on, what the caller makes belongs to the container's root; it keeps the host's privileges."""
        with errors.step(_STEP):
            uid, gid = self.maps.root
            syscalls.keep_capabilities_over_uids()
            syscalls.setfsgid(gid)
            syscalls.setfsuid(uid)

    def enter(self) -> None:
        """Become the container's root. The host's privileges are gone then."""
        with errors.step(_STEP):
            syscalls.setns(self.fd, syscalls.CLONE_NEWUSER)
            if self.joined:
                self._check_maps()
            become_root()

    def _check_maps(self) -> None:
        for file, ranges in zip(_MAP_FILES, (self.maps.uids, self.maps.gids), strict=True):
            if set(mappings.parse_text(_read(file))) != set(ranges):
                raise errors.InvalidSpec(
                    f"linux.uidMappings: the user namespace {self.joined} has others; leave them out"
                )


@contextlib.contextmanager
def files_made_by(owner: Owner | None) -> Iterator[None]:
    """What is made meanwhile belongs to the container's root. For a caller that goes on as the host's afterwards."""
    if owner is None:
        yield
        return
    owner.make_files_as_root()
    try:
        yield
    finally:
        syscalls.setfsuid(os.getuid())
        syscalls.setfsgid(os.getgid())
        syscalls.let_uids_change_capabilities()


def give_pipes(fds: Iterable[int], spec: Spec) -> None:
    """Give the container's root those that are pipes, so that it may open /dev/stdout. Never a device or a file."""
    wanted = spec.user_namespace
    if wanted is None:
        return
    pipes = [fd for fd in fds if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode)]
    maps = spec.id_maps
    for fd in pipes:
        with errors.step(_STEP):
            maps = maps or _maps_at(wanted.path)
        with contextlib.suppress(PermissionError):  # a pipe that the caller passed may belong elsewhere
            os.fchown(fd, *maps.root)


def _maps_at(path: str) -> IdMaps:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_maps(fd)
    finally:
        os.close(fd)


def become_root() -> None:
    """Be root in the user namespace that was just entered, where the ids from before mean nobody."""
    with contextlib.suppress(PermissionError):  # denied where an ordinary user's namespace is above: they stay
        os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


@contextlib.contextmanager
def inhabited(maps: IdMaps, other_namespaces: int = 0) -> Iterator[int]:
    """The pid of a process that does nothing in a new user namespace, and in others that belong to that one."""
    pid = forks.idle_in(syscalls.CLONE_NEWUSER | other_namespaces)
    try:
        for file, ranges in (("uid_map", maps.uids), ("gid_map", maps.gids)):
            fd = os.open(f"/proc/{pid}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, mappings.text(ranges).encode())
            finally:
                os.close(fd)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def make(maps: IdMaps) -> int:
    """A descriptor of a new user namespace, which lives as long as it is open or in use."""
    with inhabited(maps) as pid:
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def be_born(owner: Owner, spec: Spec, parent: socket.socket) -> None:
    """Go on as a new process in the user namespace, and in a pid namespace that belongs to it; the caller ends.

    The kernel puts only children into a pid namespace, so one process comes between the parent and the first one, which
    says who it is to the same parent: {"born": pid}.
    """
    # One to join may be the host's, and take the host's privileges; one to make must belong to the user namespace.
    if not spec.makes("pid"):
        namespaces.enter_pid_namespace(spec)
    owner.enter()
    if spec.makes("pid"):
        namespaces.enter_pid_namespace(spec)
    with errors.step(_STEP):
        born = forks.become_sibling()
    protocol.send(parent, {"born": born})


def _read_maps(fd: int) -> IdMaps:
    """The mappings of a namespace that somebody else made: only a process inside can tell."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWUSER)
            for file in _MAP_FILES:
                os.write(theirs, f"{_read(file)};".encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        uids, _, rest = pipe.read().decode().partition(";")
    os.waitpid(pid, 0)
    maps = IdMaps(uids=mappings.parse_text(uids), gids=mappings.parse_text(rest.removesuffix(";")))
    if mappings.outside(maps.uids, 0) is None or mappings.outside(maps.gids, 0) is None:
        raise errors.InvalidSpec("linux.namespaces: the user namespace to join does not map id 0; map it first")
    return maps


def _read(path: str) -> str:
    """Without a text file, whose codec each fork would have to find and load: 0.8 ms."""
    with open(path, "rb", buffering=0) as file:
        return (file.readall() or b"").decode()


_MAP_FILES: Final = ("/proc/self/uid_map", "/proc/self/gid_map")

"""What a plain container's first process needs of the outside: looked up, made and opened by somebody else.

The caller has a umask of 0, and keeps its capabilities over changes of its user (`userns.Owner.make_files_as_root`).
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime import namespaces, paths, program, rootfs, syscalls, userns, users
from runtime.cgroups import Cgroup
from runtime.script import ask, machine, plain
from runtime.script.parts import Before, Board, Inside, Pipe
from runtime.script.steps import Cell, Script
from runtime.seccomp import cache
from runtime.seccomp import filter as filters
from runtime.spec import Mount, Spec, mappings
from runtime.users import Identity
from runtime.values import frozen

_INSIDE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_SYMLINKS


class NotPlainError(Exception):
    """The container has to be made by `firstprocess`."""


@dataclass(slots=True, kw_only=True)
class Given:
    """Descriptors that one part of a script is given, in the order of the cells in which it finds them."""

    script: Script
    fds: list[int] = field(default_factory=list)

    def give(self, fd: int) -> Cell:
        """Pass on a descriptor, and close it in the end."""
        self.fds.append(fd)
        return self.script.given()

    def close(self) -> None:
        """Close them here."""
        while self.fds:
            os.close(self.fds.pop())


@frozen
class Streams:
    """The standard streams that the executor gives: for each the owner of a pipe, -1 for another file, or None."""

    owners: tuple[int | None, int | None, int | None]

    @classmethod
    def of(cls, fds: Iterable[int], *, logged: bool) -> "Streams":
        """Those that came with the request, or else the log's pipes, which the executor makes."""
        owners = [_pipe_owner(fd) for fd in fds]
        if owners:
            return cls(owners=(owners[0], owners[1], owners[2]))
        return cls(owners=(None, 0, 0) if logged else (None, None, None))


def _pipe_owner(fd: int) -> int:
    status = os.fstat(fd)
    return status.st_uid if stat.S_ISFIFO(status.st_mode) else -1


@frozen
class Found:
    """What both parts are written from: what the first one needs, the user namespace, and the filter with its flags."""

    before: Before
    owner: userns.Owner | None
    instructions: bytes
    flags: int


def find(
    spec: Spec, group: Cgroup, streams: Streams, given: Given, *, memory: machine.Memory, proc: int, state_root: str
) -> Found:
    """Open what the first part needs; what is open is in `given`, also after a failure.

    `memory` may be used for asking; `proc` is a procfs that is mounted nowhere. The first cells are `Before.wake`,
    `monitor` and `told`, and then the streams'. Raises NotPlainError, ContainerError and OSError.
    """
    instructions, flags = _filter(spec, state_root)
    wake, monitor, told = given.script.given(), given.script.given(), given.script.given()
    cells = [None if owner is None else given.script.given() for owner in streams.owners]
    pipes = (
        Pipe(cell=cell, owner=owner)
        for cell, owner in zip(cells, streams.owners, strict=True)
        if cell is not None and owner is not None and owner >= 0
    )
    joined = [(each, given.give(os.open(each.path, os.O_RDONLY | os.O_CLOEXEC))) for each in namespaces.joined(spec)]
    owner = _owner(spec, memory)
    before = Before(
        spec=spec,
        doors=group.door_paths(),
        proc=given.give(os.dup(proc)) if spec.sysctl else None,
        joined=joined,
        user_namespace=given.give(owner.fd) if owner is not None else None,
        outer_root=owner.maps.root if owner is not None else None,
        streams=tuple(cells),
        pipes=tuple(pipes),
        wake=wake,
        monitor=monitor,
        told=told,
    )
    return Found(before=before, owner=owner, instructions=instructions, flags=flags)


def prepare(tree: rootfs.Tree, found: Found, given: Given) -> Inside:
    """Make and open what the second part needs; likewise."""
    spec, owner = tree.spec, found.owner
    with userns.files_made_by(owner):
        sources = rootfs.prepare(tree, owner, ahead=True)
        root = given.give(sources.root)
        mounts = {path: given.give(fd) for path, fd in sources.mounts.items()}
        boards = {}
        for mount in spec.mounts:
            copies = sources.cgroups.get(mount.path, ())
            if [name for name, _ in copies] == [""]:
                mounts[mount.path] = given.give(copies[0][1])
            elif copies:
                boards[mount.path] = _board(mount, copies, given)
        _make_places(spec, sources)
    identity = _identify(spec, sources.root)
    kinds = {path: kind for path in spec.masked_paths if (kind := _kind(spec, path, sources.root))}
    return Inside(
        identity=identity,
        variables=program.environment(spec.process, identity),
        stage=rootfs.stands_at(tree),
        root=root,
        mounts=mounts,
        boards=boards,
        masked_files=tuple(path for path, kind in kinds.items() if kind == "file"),
        masked_folders=tuple(path for path, kind in kinds.items() if kind == "folder"),
        program=found.instructions,
        filter_flags=found.flags,
    )


def _owner(spec: Spec, memory: machine.Memory) -> userns.Owner | None:
    wanted = spec.user_namespace
    if wanted is None or not wanted.path:
        return userns.Owner.of(spec)
    fd = os.open(wanted.path, os.O_RDONLY | os.O_CLOEXEC)
    maps, given = ask.id_maps(memory, fd), spec.id_maps
    if maps is None or (given and (set(given.uids), set(given.gids)) != (set(maps.uids), set(maps.gids))):
        raise NotPlainError("linux.uidMappings: the user namespace has others")
    if mappings.outside(maps.uids, 0) is None or mappings.outside(maps.gids, 0) is None:
        raise NotPlainError("linux.namespaces: the user namespace does not map id 0")
    return userns.Owner(fd=fd, maps=maps, joined=wanted.path)


def _filter(spec: Spec, state_root: str) -> tuple[bytes, int]:
    """Its instructions and flags. Compiling takes memory that a long-lived process does not want to give."""
    if spec.seccomp is None:
        return b"", 0
    known = cache.known(spec.seccomp, state_root)
    if known is None:
        raise NotPlainError("linux.seccomp: is not compiled yet")
    return known, filters.flags_without_listener(spec.seccomp)


def _board(mount: Mount, copies: tuple[tuple[str, int], ...], given: Given) -> Board:
    """A folder for each controller of version 1, to put the container's own groups on."""
    board = rootfs.cgroup_board(mount)
    cell = given.give(board)
    for name, _ in copies:
        os.mkdir(name, 0o755, dir_fd=board)
    return Board(cell=cell, groups=tuple((name, given.give(fd)) for name, fd in copies))


def _make_places(spec: Spec, sources: rootfs.Sources) -> None:
    """A folder or file for each mount to lie on, and the working directory; through no link, or it is not plain."""
    for number, mount in enumerate(spec.mounts):
        above = plain.above(spec.mounts[:number], mount.destination)
        if above is None:
            base, path = sources.root, mount.destination
        elif rootfs.is_devices(above):
            base, path = sources.mounts[above.path], mount.destination.removeprefix("/dev")
        else:
            continue  # it is there, made by the kernel
        made = sources.mounts.get(mount.path)
        if made is None or stat.S_ISDIR(os.fstat(made).st_mode):
            os.close(paths.make_folder(base, path, links=False))
        else:
            os.close(paths.make_file(base, path))
    os.close(paths.make_folder(sources.root, spec.process.cwd, links=False))


def _identify(spec: Spec, root: int) -> Identity:
    user = spec.process.user
    passwd = users.read_table(users.PASSWD, root, _INSIDE)
    return users.identify(user, passwd, users.read_table(users.GROUP, root, _INSIDE) if user.username else "")


def _kind(spec: Spec, path: str, root: int) -> str:
    """Whether a masked path is a file or a folder; "" when it is not there."""
    try:
        # In the kernel's own trees it is what it is here.
        mode = os.stat(path).st_mode if plain.above(spec.mounts, path) is not None else _mode(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "folder" if stat.S_ISDIR(mode) else "file"


def _mode(root: int, path: str) -> int:
    fd = paths.locate(root, path, links=False)
    try:
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)

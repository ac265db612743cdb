"""What the two parts of a first process's script are written from: what was found out, made and opened outside."""

from collections.abc import Sequence

from runtime.script.steps import Cell
from runtime.spec import Namespace, Spec
from runtime.users import Identity
from runtime.values import frozen


@frozen
class Board:
    """A folder in memory with one for each controller of version 1, and the groups to put on those."""

    cell: Cell
    groups: tuple[tuple[str, Cell], ...]


@frozen
class Pipe:
    """A standard stream that is a pipe, and its owner on the host."""

    cell: Cell
    owner: int


@frozen
class Before:
    """What the first part needs. Descriptors are cells."""

    spec: Spec
    doors: Sequence[str]  # the files of the cgroup that a process enters by
    proc: Cell | None  # for kernel parameters
    joined: Sequence[tuple[Namespace, Cell]]
    user_namespace: Cell | None
    outer_root: tuple[int, int] | None  # the host's ids of the user namespace's root
    streams: tuple[Cell | None, ...]  # three; None: the container's /dev/null
    pipes: Sequence[Pipe]
    wake: Cell  # a `struct pollfd` of an eventfd(2) that says that the second part is there
    monitor: Cell  # likewise of a pidfd that says that the monitor has ended; it comes right after the other
    told: Cell  # a pipe that gets a byte when the process has descriptors of its own


@frozen
class Inside:
    """What was found out, or made, outside. Descriptors are cells."""

    identity: Identity
    variables: dict[str, str]
    stage: str  # where the root is attached until it is /
    root: Cell
    mounts: dict[str, Cell]  # by the mount's field: what was made detached
    boards: dict[str, Board]  # likewise
    masked_files: tuple[str, ...]
    masked_folders: tuple[str, ...]
    program: bytes  # the filter's, or nothing
    filter_flags: int

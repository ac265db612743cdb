"""What is left on a machine when its agent has ended, and how each of it is taken away.

Two rules: each step may find its work done already, so that a departure that was interrupted is begun again; and each
is bounded, and says what is in its way.
"""

import contextlib
import fcntl
import os
import re
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.adapters import trees
from agent.adapters.layout import KEEPER, Layout
from agent.errors import Temporary
from protos import containers
from runtime import cgroups, client, residence, state, syscalls

STOP_TIMEOUT_S = 20.0
"""An agent that is told to end does so within a second or two."""
ROUNDS = 10
"""Mounts lie on one another; more than a few such layers are nobody's plan."""

AT_ONCE = 16
_SUFFIX = ".new"
_OCTAL = re.compile(rb"\\([0-7]{3})")


class InTheWay(Exception):  # noqa: N818 - named after what is so
    """It cannot go on; the text says why and what to do."""


@contextlib.contextmanager
def locked(layout: Layout, *, stop_agent: bool) -> Iterator[None]:
    """No agent uses the state folder meanwhile, and none can be started on it. Raises InTheWay, or OSError."""
    folder, lock = layout.state, os.open(layout.lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        if not _try_lock(lock):
            pid = _holder(lock)
            who = f"process {pid}" if pid else "a process of another namespace"
            if not stop_agent or not pid:
                raise InTheWay(f"an agent ({who}) uses {folder}; end it first, or say --stop-agent")
            _end(pid)
            if not _try_lock(lock):
                raise InTheWay(f"somebody has started another agent on {folder}; see to it that nobody does")
        yield
    finally:
        os.close(lock)


def tasks(layout: Layout) -> list[str]:
    """Those of which a container runs."""
    known = client.list_containers(str(layout.run))
    return sorted({containers.split(entry.id)[0] for entry in known if entry.status != "stopped"})


def remove_containers(layout: Layout) -> int:
    """Whatever there is of any, running or not; returns how many. Raises runtime.errors.ContainerError, or OSError."""
    names = state.names(str(layout.run))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for removed in [pool.submit(client.delete, str(layout.run), name, force=True) for name in names]:
            removed.result()
    return len(names)


def unmount(layout: Layout) -> int:
    """All that is mounted below the agent's folders: pinned namespaces, mostly. Returns how many. Raises OSError."""
    removed = 0
    for _ in range(ROUNDS):
        points = _mounted_below(layout.state, layout.run)
        if not points:
            return removed
        for point in points:
            syscalls.umount2(point, syscalls.MNT_DETACH)
            removed += 1
    raise InTheWay(f"something mounts {points[0]} again and again")


def remove_groups(path: str) -> None:
    """The control groups of the node's containers in each hierarchy, and those above them that nobody else is in.

    The group of a unit stays where its keeper is, and goes with the unit. Raises runtime.errors.ContainerError when
    somebody else is in them.
    """
    if path.endswith(".service"):
        for name in _below(path) - {KEEPER}:
            _remove_group(f"{path}/{name}")
        above = (Path(path), *Path(path).parents)
    else:
        _remove_group(path)
        above = tuple(Path(path).parents)
    for group in above[:-1]:
        for folder in residence.everywhere(str(group)):
            with contextlib.suppress(OSError):  # somebody else has a group in it
                Path(folder).rmdir()


def _remove_group(path: str) -> None:
    cgroups.existing(cgroups.current_layout(), path).delete()
    residence.remove(path, 1)  # of the monitors, where no controller is


def _below(path: str) -> set[str]:
    """Names of the groups below one, in any hierarchy."""
    there = [Path(folder) for folder in residence.everywhere(path)]
    return {one.name for folder in there if folder.is_dir() for one in folder.iterdir() if one.is_dir()}


def remove_files(layout: Layout) -> None:
    """What the agent has on its disk. Whatever else somebody has put into its folders stays. Raises InTheWay."""
    for path in layout.own:
        _remove(path)
        _remove(path.with_name(f"{path.name}{_SUFFIX}"))
    with contextlib.suppress(OSError):  # not empty, and so not ours alone
        layout.state.rmdir()


def _remove(path: Path) -> None:
    """However deep containers have nested what is in it."""
    try:
        trees.remove(path)
    except Temporary as error:
        raise InTheWay(error.message) from error


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: int) -> int:
    """Who has the lock, as it says in there; 0 when the process of that number does not even have it open."""
    said = os.pread(lock, 20, 0)
    if not said.isdigit():
        return 0
    with contextlib.suppress(OSError):  # it has just ended, or is in another namespace
        opened = [path.stat() for path in Path(f"/proc/{int(said)}/fd").iterdir()]
        if any(os.path.samestat(one, os.fstat(lock)) for one in opened):
            return int(said)
    return 0


def _end(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGINT)  # it does not come back (`agent.goodbye`)
        if not select.select([process], [], [], STOP_TIMEOUT_S)[0]:
            raise InTheWay(f"the agent (process {pid}) has not ended within {STOP_TIMEOUT_S:g} s")
    finally:
        os.close(process)


def _mounted_below(*folders: Path) -> list[str]:
    """Mount points, the innermost first: the fifth column of proc_pid_mountinfo(5), in which a space is `\\040`."""
    written = [line.split()[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
    points = [os.fsdecode(_OCTAL.sub(lambda code: bytes([int(code[1], 8)]), one)) for one in written]
    below = [point for point in points if any(folder in Path(point).parents for folder in folders)]
    return sorted(below, key=len, reverse=True)

"""What may be asked of any container by its folder alone, whether it has a monitor or not."""

import contextlib
import json
import os
import signal
from typing import Any

from runtime import cgroups, errors, state
from runtime.state import State


def config(root: str, container: str) -> dict[str, Any]:
    """The configuration that the container was created with; raises UnknownContainer."""
    path = os.path.join(state.folder(root, container), state.CONFIG_FILE)
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        raise errors.UnknownContainer(f"container {container}: does not exist below {root}") from None
    assert isinstance(found, dict), path
    return found


def status(known: State) -> str:
    """The status as the specification names it, with `paused` beside."""
    if known.status == "running" and group(known).is_frozen():
        return "paused"
    return known.status


def members(known: State) -> list[int]:
    """The container's processes; raises WrongStatus when only a cgroup would know them, and it has none."""
    found = group(known) if known.cgroups_path else None
    if found is None or (not found.folders and known.status != "stopped"):
        why = "none may be made by this user" if known.cgroups_path else "it was made with --cgroup-manager disabled"
        raise errors.WrongStatus(f"container {known.id}: has no cgroup, as {why}, so only its first process is known")
    return found.pids()


def group(known: State) -> cgroups.Cgroup:
    """The container's cgroup."""
    return cgroups.of(known.cgroups_path)


def open_first_process(known: State) -> int:
    """A pidfd of the container's first process; raises WrongStatus when it has ended."""
    ended = errors.WrongStatus(f"container {known.id}: container not running")
    try:
        pidfd = os.pidfd_open(known.pid)
    except ProcessLookupError:
        raise ended from None
    if state.process_start(known.pid) != known.pid_start:  # after opening: now the descriptor means that very one
        os.close(pidfd)
        raise ended
    return pidfd


def kill(known: State, number: int, *, everybody: bool = False) -> None:
    """Signal the first process, or every process of the container's cgroup."""
    if everybody:
        for pid in members(known):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    else:
        pidfd = open_first_process(known)
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
    if number == signal.SIGKILL:
        group(known).let_die()


def pause(known: State) -> None:
    """Freeze every process of the container."""
    if status(known) != "running":
        raise errors.WrongStatus(f"container {known.id}: cannot be paused, since it is {status(known)}")
    group(known).freeze()


def resume(known: State) -> None:
    """Let a paused container go on."""
    if status(known) != "paused":
        raise errors.WrongStatus(f"container {known.id}: cannot be resumed, since it is {status(known)}, not paused")
    group(known).thaw()

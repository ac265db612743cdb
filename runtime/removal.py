"""Remove containers: running or ended, whole, half created, or abandoned by a monitor that was killed.

One rule: whatever state a container was left in, `delete` by force removes it, and doing so twice is no error.
"""

import contextlib
import os
import select
import signal
from typing import Final

from runtime import cgrouppath, cgroups, errors, hooks, state
from runtime.state import State

_END_S: Final = 5.0


def delete(root: str, container: str, *, force: bool = False, layout: cgroups.Layout | None = None) -> None:
    """Remove what is left of a container: processes, cgroups and its folder. Deleting twice is no error.

    A running container is refused unless `force` is given, which kills it first. The upper and work folders of its
    overlay are the caller's. One that is being made is waited for. `layout`: for a caller that has looked it up.
    """
    with contextlib.suppress(errors.UnknownContainer), state.locked(root, container):
        delete_locked(root, container, force=force, layout=layout)


def delete_locked(root: str, container: str, *, force: bool, layout: cgroups.Layout | None = None) -> None:
    """Likewise, for a caller that holds the container's lock (`state.locked`)."""
    where = state.folder(root, container)
    try:
        known = state.load(root, container)
    except errors.UnknownContainer:
        _delete_unknown(where, layout)
        return
    if known.status != "stopped":
        if not force:
            raise errors.WrongStatus(f"container {container}: is {known.status}; stop it first, or delete it by force")
        _end(known)
    config = state.load_config(where, naming=hooks.POSTSTOP)
    _delete_group(known.cgroups_path, layout)
    state.remove_folder(where)
    hooks.after_deletion(config, container, known.bundle)


def _delete_unknown(where: str, layout: cgroups.Layout | None) -> None:
    """A folder whose creation was cut short names its cgroup in config.json only."""
    config, container = state.load_config(where), os.path.basename(where)
    if config:  # or no cgroup was made yet, and no hook executed
        path = cgrouppath.absolute(config.get("linux", {}).get("cgroupsPath", ""))
        _delete_group(path or state.default_cgroups_path(container), layout)
    state.remove_folder(where)
    hooks.after_deletion(config, container, "")


def _delete_group(path: str, layout: cgroups.Layout | None) -> None:
    cgroups.of(path, layout).clear()
    if scope := cgrouppath.scope(path):
        from runtime import systemd  # only here, since few have one

        systemd.stop(scope)


def _end(known: State) -> None:
    """Kill the first process and wait: without a monitor for its end, else for the monitor, which has a last word."""
    group = cgroups.of(known.cgroups_path)
    if not known.monitor_pid:
        # Through the group, which thaws what is frozen; then the process itself, wherever somebody may have moved it.
        group.kill_all()
        _kill(known.pid, known.pid_start, wait_s=_END_S)
        return
    _kill(known.pid, known.pid_start, wait_s=0)
    group.let_die()
    # The monitor ends by itself; one that hangs is killed too.
    if not _kill(known.monitor_pid, known.monitor_start, number=0, wait_s=_END_S):
        _kill(known.monitor_pid, known.monitor_start, wait_s=_END_S)


def _kill(pid: int, start: int, *, number: int = signal.SIGKILL, wait_s: float) -> bool:
    """Signal the very process that started then, and wait for its end; whether it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if state.process_start(pid) != start:  # checked after opening: from here on the descriptor means that one
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        return bool(select.select([pidfd], [], [], wait_s)[0])
    finally:
        os.close(pidfd)

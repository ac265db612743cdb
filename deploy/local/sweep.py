"""Removes what the end of its processes leaves of a cluster. Every step may find its work done already.

Run by the sweeper when the supervisor has ended, however it ended; and by `up` and `down`, for the case that the
sweeper was killed as well.
"""

import contextlib
import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.local import errors, network, record
from orchctl import config

_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.02


def sweep(the_record: record.Record) -> None:
    """Everything but the state folder. LocalError when something stays."""
    plan = the_record.plan
    for name, process in the_record.processes.items():
        if process is not None and name not in {"supervisor", "sweeper"}:
            process.signal(signal.SIGKILL)
    if network.exists(plan.host_link):
        with contextlib.suppress(errors.LocalError):  # it goes with the LAN's namespace; who was first does not matter
            network.ip(f"link delete {plan.host_link}")
    forget_context(the_record)
    remove_cgroups(plan.cgroup)


def remove_folder(folder: Path) -> None:
    """The state folder with everything in it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def empty_folder(folder: Path) -> None:
    """What is in the state folder; the folder itself is locked and stays."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def forget_context(the_record: record.Record) -> None:
    """`orchctl` talks again to what it talked to before, unless the person has chosen something else meanwhile."""
    name, path = the_record.plan.name, Path(the_record.plan.config)
    contexts = config.load(path)
    if name not in contexts.contexts:
        return
    was_current = contexts.current == name
    contexts = contexts.without_context(name)
    if was_current and the_record.previous_context in contexts.contexts:
        contexts = contexts.using(the_record.previous_context)
    if contexts.contexts:
        config.save(path, contexts)
    else:
        path.unlink()
        with contextlib.suppress(OSError):  # it holds something else
            path.parent.rmdir()


def _cgroup_roots() -> set[str]:
    """Where hierarchies are mounted; other people's runtimes also make groups in the named ones."""
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {fields[4] for fields in mounts if fields[fields.index("-") + 1] in {"cgroup", "cgroup2"}}


def remove_cgroups(path: str) -> None:
    """The group in every hierarchy, bottom up; then /orch, if that was the last cluster.

    A group stays busy until the kernel has buried its last process, so this tries for a while.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    roots = _cgroup_roots()
    left = sorted(roots)
    while left:
        left = [root for root in left if not _remove_tree(Path(root + path))]
        if left and time.monotonic() > deadline:
            raise errors.LocalError(
                f"control groups are still busy after {_TIMEOUT_S:.0f} s: {', '.join(root + path for root in left)}",
                hint="end the processes that their cgroup.procs name",
            )
        if left:
            time.sleep(_PAUSE_S)
    for root in roots:
        with contextlib.suppress(OSError):  # another cluster is in it, or nothing ever was
            Path(root + path).parent.rmdir()


def _remove_tree(top: Path) -> bool:
    """Whether it is gone."""
    for group in _bottom_up(top):
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _kill(group)
            return False
    return True


def _bottom_up(top: Path) -> Iterator[Path]:
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _kill(group: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

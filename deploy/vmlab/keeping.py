"""Starting a keeper, finding the one that there is, and ending it.

One rule: the folder's lock tells whether there is one. The keeper holds it for as long as it lives.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from deploy.local import errors, record
from deploy.local.processes import Process
from deploy.vmlab import keeper, plan

_START_TIMEOUT_S: Final = 20.0
_DOWN_TIMEOUT_S: Final = 20.0
_TAIL_LINES: Final = 15

Commands = Mapping[str, Sequence[str]]
"""How each machine is started, by its name."""


def begin(places: plan.Places, prepare: Callable[[], Commands], *, owner: int) -> Process:
    """A keeper of machines that have been switched on. `prepare` may fill the empty folder before.

    It ends with the process `owner`, unless it is released. LocalError when there is one already, or it cannot start.
    """
    places.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = record.lock(places.run)
    if lock is None:
        raise _already()
    try:
        _empty(places.run)
        keeper.save(places.run, keeper.Record(keeper=None, commands=prepare()))
        _start(places, lock, owner)
    finally:
        os.close(lock)  # from here on it is the keeper's
    return of(places)


def check_none(places: plan.Places) -> None:
    """LocalError when a laboratory is up."""
    if record.is_locked(places.run):
        raise _already()


def _already() -> errors.LocalError:
    return errors.LocalError("a laboratory is up already", hint="make vmlab-down")


def _start(places: plan.Places, lock: int, owner: int) -> None:
    owner_fd = os.pidfd_open(owner)
    ready, write_ready = os.pipe()
    passed = (lock, write_ready, owner_fd)
    command = [sys.executable, "-m", "deploy.vmlab.keeper", str(places.cache)]
    command += ["--lock-fd", str(lock), "--ready-fd", str(write_ready), "--owner-fd", str(owner_fd)]
    with places.log("keeper").open("ab") as log, os.fdopen(ready, "rb") as pipe:
        # It forks and goes its own way at once.
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=passed, check=True)
        for descriptor in (write_ready, owner_fd):
            os.close(descriptor)
        readable, _, _ = select.select([pipe], [], [], _START_TIMEOUT_S)
        if not readable or not pipe.read():
            raise errors.LocalError("the laboratory's keeper could not start", detail=tail(places.log("keeper")))


def of(places: plan.Places) -> Process:
    """The keeper of the laboratory that is up. LocalError when none is."""
    known = keeper.load(places.run)
    if known is None or known.keeper is None or not record.is_locked(places.run):
        raise errors.LocalError("no laboratory is up", hint="start one: make vmlab")
    return known.keeper


def end(places: plan.Places) -> bool:
    """End the keeper, and with it the machines; remove what they have written. Whether there was anything."""
    known = keeper.load(places.run)
    if known is None:
        return False
    if known.keeper is not None and record.is_locked(places.run):
        known.keeper.signal(signal.SIGTERM)
        if not known.keeper.wait(_DOWN_TIMEOUT_S):
            raise errors.LocalError(
                f"the keeper (pid {known.keeper.pid}) is still there after {_DOWN_TIMEOUT_S:.0f} s",
                hint=f"kill -9 {known.keeper.pid}, then again",
            )
    _empty(places.run)
    return True


def _empty(run: Path) -> None:
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def tail(path: Path) -> str:
    """The last lines of a file; nothing when there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL_LINES:])

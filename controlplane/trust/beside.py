"""The process of the member of etcd beside an instance: what it was started with, and how it is ended to start anew.

    etcd/process.json   written by orch-etcd in the moment before it becomes etcd

The rule: it is ended only when whoever started it has said that it is then started again. And what is written there
counts while that very process lives, so that a pid that was given to another is never mistaken for it.
"""

import contextlib
import hashlib
import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.trust import storeplace
from trust.folder import Folder, NotTrusted

FILE = "process.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """`started`: in clock ticks since the machine's start, field 22 of /proc/PID/stat (proc(5)). `roots`: the digest of
    those that it believes. `restarted`: it is started again when it ends.
    """

    pid: int
    started: int
    roots: str
    restarted: bool


def digest(roots: bytes) -> str:
    """By which roots are compared with those that a process was started with."""
    return hashlib.sha256(roots).hexdigest()


def note(folder: Folder, *, restarted: bool) -> None:
    """This process becomes the member beside the instance of a folder. Raises NotTrusted.

    Roots that come into the file between this and etcd's own look at it make no harm: those that are noted are
    then others than are wanted, and it is started anew once more.
    """
    own = storeplace.member_folder(folder)
    roots = digest(own.read(storeplace.ROOTS))
    made = Process(pid=os.getpid(), started=_started(os.getpid()), roots=roots, restarted=restarted)
    own.write(FILE, json.dumps(asdict(made)).encode())


def running(folder: Folder) -> Process | None:
    """The member beside an instance; None when it does not run, or was not started by orch-etcd. Raises NotTrusted."""
    own = storeplace.member_folder(folder)
    if not (own.path / FILE).exists():
        return None
    try:
        found = Process(**json.loads(own.read(FILE)))
    except (TypeError, ValueError) as error:
        raise NotTrusted(f"{own.path / FILE} is damaged: {error}; restart orch-etcd") from error
    return found if _started(found.pid) == found.started else None


def end(process: Process) -> None:
    """Asks it to end (SIGTERM). Nothing happens when it has ended. Raises NotTrusted when it is another user's."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(process.pid)
        try:
            if (
                _started(process.pid) == process.started
            ):  # asked after it was opened: it cannot be another's from here on
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        except PermissionError:
            raise NotTrusted("its etcd is run by another user, and cannot be ended: restart orch-etcd there") from None
        finally:
            os.close(descriptor)


def _started(pid: int) -> int:
    """0: there is none, or it has ended and nobody has asked how."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return 0 if fields[0] in "ZX" else int(fields[19])

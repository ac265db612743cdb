"""What one cluster alone has on this machine: its name, and its ranges of addresses. Links, routes and control groups
are the machine's, whatever checkout or state folder a cluster comes from.

The rule: a claim is a lock on a file in `FOLDER`, held by supervisor and sweeper for as long as they live. So it ends
with the cluster, however that ends. The file tells who has it, and goes with the sweeper; where that was killed it
stays, and only its lock says that somebody has it.

    /run/orch-local/name-local     held by: cluster local, /root/.local/state/orch/local
    /run/orch-local/10.111.0.0     held by: cluster local, /root/.local/state/orch/local
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from deploy.local import errors, plan

FOLDER: Final = Path("/run/orch-local")
_MOST_BYTES: Final = 4096


def name(wanted: str, owner: str, folder: Path = FOLDER) -> int:
    """The descriptor that holds the claim to a name. `owner` says for whom. LocalError when another cluster has it."""
    descriptor = _take(_file_of_name(wanted), owner, folder)
    if descriptor is None:
        raise errors.Taken(
            f"another cluster called {wanted} is up: {_holder(_file_of_name(wanted), folder)}",
            hint="choose another name with --name, or take that one down with its --state",
        )
    return descriptor


def lan(taken: Iterable[str], owner: str, folder: Path = FOLDER) -> tuple[plan.Lan, int]:
    """The first ranges that are free, and the descriptor that holds the claim to them. `taken`: networks that the host
    has an address or a route in. LocalError when there are none.
    """
    for candidate in plan.lans(taken):
        descriptor = _take(_file_of(candidate), owner, folder)
        if descriptor is not None:
            return candidate, descriptor
    raise plan.no_room()


def forget(its_name: str, its_lan: plan.Lan, folder: Path = FOLDER) -> None:
    """Remove the files. Only who still holds the claims may, and gives them up right after."""
    for what in (_file_of_name(its_name), _file_of(its_lan)):
        (folder / what).unlink(missing_ok=True)


@contextlib.contextmanager
def a_lan(taken: Iterable[str], owner: str) -> Iterator[plan.Lan]:
    """Ranges that are free, and that nobody else takes until the end of the block."""
    chosen, descriptor = lan(taken, owner)
    try:
        yield chosen
    finally:
        (FOLDER / _file_of(chosen)).unlink(missing_ok=True)
        os.close(descriptor)


def _file_of(candidate: plan.Lan) -> str:
    return candidate.network.partition("/")[0]


def _file_of_name(wanted: str) -> str:
    return f"name-{wanted}"


def _take(what: str, owner: str, folder: Path) -> int | None:
    """The descriptor that holds the claim until it (and each copy of it) is closed. None: somebody has it."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    while True:
        descriptor = os.open(folder / what, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, folder / what):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"held by: {owner}\n".encode())
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed by who had it, between the two calls: the next one is another file


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(what: str, folder: Path) -> str:
    """In words, as its file says."""
    try:
        text = (folder / what).read_bytes()[:_MOST_BYTES].decode(errors="replace").strip()
    except FileNotFoundError:
        text = ""
    return text or "it is about to start or to end"

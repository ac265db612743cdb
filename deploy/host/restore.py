"""Makes this machine the first control plane of a cluster that was lost: `orchctl cluster restore FILE`.

The rule: the folder of certificates says which backup it is of. So a try that broke off is ended by the next with the
same file; and where anything else of a control plane is, nothing is touched.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.host import controlplane, first
from deploy.host.errors import HostError
from deploy.host.places import Places
from orchctl import membership
from trust.folder import Folder

_SOURCE: Final = "restored-from"
"""The SHA-256 of the backup, in the folder of certificates."""


def restore(wish: first.Wish, path: Path, places: Places) -> str:
    """Does it, and returns what to tell the person. Raises HostError, NotTrusted, OrchctlError."""
    digest = _digest(path)
    _check_empty(path, digest, places)
    machine = controlplane.checked(wish.machine, places, managed_store=not wish.etcd)
    told = [f"this machine was restored from {path} before; its control plane is configured"]

    def make(asked: membership.Founding, admins: Path) -> None:
        told[:] = [membership.restored(asked, path, admins)]
        Folder(asked.trust).write(_SOURCE, digest)

    starts = first.set_up(wish, machine, places, make)
    return "\n".join([*told, *starts, "", *_next(machine.server)])


def _next(server: str) -> Sequence[str]:
    return [
        f"nodes that do not know {server} are told it once, each on its machine:",
        f"""  sed -i 's/^server:.*/server: "{server}"/' /etc/orch/agent.yaml && systemctl restart orch-agent""",
        "the other control planes join anew, with empty folders and a token:",
        "  orchctl cluster token create --role controlplane",
    ]


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest().encode()
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", hint="say where the backup is") from error


def _check_empty(path: Path, digest: bytes, places: Places) -> None:
    """That there is nothing of a control plane, but of one that was restored from this very backup."""
    own = Folder(places.trust)
    if own.exists():
        if (own.path / _SOURCE).exists() and own.read(_SOURCE) == digest:
            return
        raise HostError(
            f"{own.path} is of a control plane: a cluster is restored where there is none",
            hint=f"if that one is lost, end its services, move {own.path} and {places.store} away, and try again",
        )
    if places.store.is_dir() and any(places.store.iterdir()):
        raise HostError(
            f"{places.store} holds what a member of a store has written, and {path.name} is restored into an empty one",
            hint=f"if that store is lost, move {places.store} away, and try again",
        )

"""Founds a cluster on this machine, and has its first control plane run: `orchctl cluster init`.

The rule: the certificates of the control plane and of its first admin are made together, and kept one after the other.
A try that ends between the two is ended by the next.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.host import controlplane, outside
from deploy.host.errors import HostError
from deploy.host.places import Places
from orchctl import config, membership
from trust.folder import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. `etcd`: arguments about one that there is already."""

    machine: controlplane.Wish
    context: str
    admin: str = ""
    etcd: Sequence[str] = ()


def init(wish: Wish, places: Places) -> str:
    """Does it, and returns what to tell the person. Raises HostError, NotTrusted, OrchctlError."""
    machine = controlplane.checked(wish.machine, places, managed_store=not wish.etcd)
    answer: dict[str, str] = {}

    def make(asked: membership.Founding, admins: Path) -> None:
        answer.update(membership.found(asked, admins))

    starts = set_up(wish, machine, places, make)
    return "\n".join([_told(answer, machine), *starts])


def set_up(
    wish: Wish, machine: controlplane.Machine, places: Places, make: Callable[[membership.Founding, Path], None]
) -> Sequence[str]:
    """Has certificates made, where an earlier try has not, and the instance run; lines about what is left to start.

    `make` is given what was asked for, and the folder of the admin. Raises HostError, NotTrusted, OrchctlError.
    """
    admins = config.trust_folder(wish.context)
    fresh = admins.with_name(f"{admins.name}.new")
    if not Folder(places.trust).exists():
        outside.check(wish.etcd)
        _check_context(wish.context, admins)
    controlplane.certified(places, lambda folder: make(_emptied(wish, machine, folder, fresh), fresh))
    if Folder(fresh).exists():
        shutil.rmtree(admins, ignore_errors=True)
        fresh.rename(admins)
    membership.use(wish.context, machine.server, admins)
    if not controlplane.run(machine, places):
        return controlplane.left_to_start(places)
    controlplane.wait_until_it_answers(machine.server, admins)
    return []


def _check_context(context: str, admins: Path) -> None:
    if Folder(admins).exists():
        of = Folder(admins).load().identity
        raise HostError(
            f"the context {context} is of {of} in the cluster {of.cluster}",
            hint="call the one of this cluster by another name: --context NAME",
        )


def _emptied(wish: Wish, machine: controlplane.Machine, folder: Path, fresh: Path) -> membership.Founding:
    """What was asked for; what a try that broke off has left in the two folders goes."""
    for begun in (folder, fresh):
        shutil.rmtree(begun, ignore_errors=True)
    return membership.Founding(
        name=machine.name,
        trust=folder,
        admin=wish.admin,
        host=machine.address,
        server=machine.server,
        context=wish.context,
        etcd=wish.etcd,
    )


def _told(answer: dict[str, str], machine: controlplane.Machine) -> str:
    server = machine.server.removesuffix(":7400")
    if not answer:
        return (
            "the cluster was founded before; its control plane is configured\n"
            "tokens for other machines: orchctl cluster token create --role node, or --role controlplane"
        )
    return (
        f"cluster {answer['cluster']} is founded\n\nfor 24 hours, machines join as nodes with\n"
        f"  echo {answer['node_token']} | orchctl node join --server {server} --token -\n"
        f"and as further control planes with\n"
        f"  echo {answer['controlplane_token']} | orchctl cluster join --server {server} --token -"
    )

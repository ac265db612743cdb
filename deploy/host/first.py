"""Founds a cluster on this machine, and has its first control plane run: `orchctl cluster init`.

The rule: the certificates of the control plane and of its first admin are made together, and kept one after the other.
A try that ends between the two is ended by the next.
"""

import shutil
from collections.abc import Sequence
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
    if not Folder(places.trust).exists():
        outside.check(wish.etcd)
    admins = config.trust_folder(wish.context)
    fresh = admins.with_name(f"{admins.name}.new")
    answer = _founded(wish, machine, places, admins, fresh)
    if fresh.exists():
        shutil.rmtree(admins, ignore_errors=True)
        fresh.rename(admins)
    membership.use(wish.context, machine.server, admins)
    if not controlplane.run(machine, places):
        return "\n".join([_told(answer, machine), *controlplane.left_to_start(places)])
    controlplane.wait_until_it_answers(machine.server, admins)
    return _told(answer, machine)


def _founded(wish: Wish, machine: controlplane.Machine, places: Places, admins: Path, fresh: Path) -> dict[str, str]:
    """The tokens; none when an earlier try has founded it."""
    answer: dict[str, str] = {}
    if Folder(places.trust).exists():
        return answer
    if Folder(admins).exists():
        of = Folder(admins).load().identity
        raise HostError(
            f"the context {wish.context} is of {of} in the cluster {of.cluster}",
            hint="call the one of this cluster by another name: --context NAME",
        )

    def make(folder: Path) -> None:
        for begun in (folder, fresh):
            shutil.rmtree(begun, ignore_errors=True)
        asked = membership.Founding(
            name=machine.name,
            trust=folder,
            admin=wish.admin,
            host=machine.address,
            server=machine.server,
            context=wish.context,
            etcd=wish.etcd,
        )
        answer.update(membership.found(asked, fresh))

    controlplane.certified(places, make)
    return answer


def _told(answer: dict[str, str], machine: controlplane.Machine) -> str:
    server = machine.server.removesuffix(":7400")
    if not answer:
        return (
            "the cluster was founded before; its control plane is configured\n"
            "tokens for other machines: orchctl cluster token create --role node, or --role controlplane"
        )
    return (
        f"cluster {answer['cluster']} is founded\n\nfor 24 hours, machines join as nodes with\n"
        f"  orchctl node join --server {server} --token {answer['node_token']}\n"
        f"and as further control planes with\n"
        f"  orchctl cluster join --server {server} --token {answer['controlplane_token']}"
    )

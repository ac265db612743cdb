"""Makes this machine one more control plane of a cluster: `orchctl cluster join --token … --server …`.

The rule: the key that was shown at the door is kept until it is answered, as a node's is, so that a join whose answer
was lost is the same join the next time.
"""

from dataclasses import dataclass
from pathlib import Path

from deploy.host import checks, controlplane
from deploy.host.errors import HostError
from deploy.host.places import DOOR_PORT, Places
from orchctl import door as programs
from trust import joining
from trust.core.identity import Role
from trust.folder import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. `server`: a control plane that there is; `door`: its door, when that is elsewhere."""

    token: str
    server: str
    door: str = ""
    name: str = ""
    address: str = ""


def join(wish: Wish, places: Places) -> str:
    """Does it, and returns what to tell the person. Raises HostError, NotJoined, NotTrusted, OrchctlError."""
    text = joining.token_of(wish.token, Role.CONTROLPLANE)
    host, _ = checks.server(wish.server, DOOR_PORT)
    door = checks.joined(*checks.server(wish.door or checks.joined(host, DOOR_PORT), DOOR_PORT, "--door"))
    own = controlplane.Wish(name=wish.name, address=wish.address or checks.own_address(host))
    machine = controlplane.checked(own, places, managed_store=True)
    fresh = controlplane.beside(places)
    _check_cluster(text, places.trust, "`/opt/orch/install.sh uninstall --with-data` takes that one off this machine")
    _check_cluster(text, fresh, f"that broke off before its end: end it by its own command, or remove {fresh}")

    def make(folder: Path) -> None:
        if Folder(folder).exists():  # the last of what a join writes: only to be moved
            Folder(folder).end_join()
            return
        programs.ask(
            "controlplane.trust.join",
            "--token=-",
            f"--door={door}",
            f"--trust={folder}",
            f"--name={machine.name}",
            f"--host={machine.address}",
            told=text,
        )

    controlplane.certified(places, make)
    cluster = Folder(places.trust).load(Role.CONTROLPLANE).identity.cluster
    said = f"control plane {machine.name} has joined the cluster {cluster}"
    if controlplane.run(machine, places):
        return f"{said}, and serves at {machine.server}"
    return "\n".join([said, *controlplane.left_to_start(places)])


def _check_cluster(text: str, folder: Path, remedy: str) -> None:
    """A control plane of one cluster does not slip into another, and does not go on as if it had."""
    if not Folder(folder).exists():
        return
    there = Folder(folder).load(Role.CONTROLPLANE)
    if not joining.is_of(text, there):
        raise HostError(
            f"this machine is the control plane {there.identity.name} of the cluster {there.identity.cluster}, and the "
            "token is of another, or of a root that was exchanged since",
            hint=remedy,
        )

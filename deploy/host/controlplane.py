"""Makes this machine an instance of the control plane: the first (`orchctl cluster init`), or one more.

    checks ─► certificates ─► /etc/orch/{etcd,controlplane}.yaml ─► orch-etcd, orch-controlplane, until it answers

The rule: certificates are made in a folder beside, and moved to their place when they are complete. So what is there is
whole, and a second try goes on behind it.
"""

import os
import pwd
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane import arguments as instance_options
from controlplane import member
from controlplane.core.trust.etcd_flags import CLIENT_PORT, PEER_PORT
from controlplane.trust import storeplace
from deploy.host import checks, services, settings
from deploy.host.errors import HostError
from deploy.host.places import API_PORT, DOOR_PORT, OWNER, Places
from orchctl import client, errors, who
from protos.orch.v1 import trust_pb2 as pb
from protos.orch.v1 import trust_pb2_grpc
from trust.core.identity import Role
from trust.folder import Folder

_ANSWER_S: Final = 60.0
_PAUSE_S: Final = 0.2
_PARSERS: Final = {"etcd": member.parser, "controlplane": instance_options.parser}
_OPENINGS: Final = {
    "controlplane": (
        "This instance of the control plane, as `orchctl cluster init` or `join` has written it. Keys without a value "
        "are comments, with what they are then. After a change: systemctl restart orch-controlplane; tasks do not "
        "notice."
    ),
    "etcd": (
        "The member of the cluster's store on this machine. Where it and the others are is in store.json of the folder "
        "of certificates. After a change: systemctl restart orch-etcd."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. Empty: it follows from the machine."""

    name: str = ""
    address: str = ""
    server: str = ""
    """Where people and nodes reach the instance, when that is not its own address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The same, complete and checked."""

    name: str
    address: str
    server: str
    metrics: Sequence[str]
    """Where Prometheus reads: what the file has, else the usual port of the address."""

    @property
    def listens(self) -> str:
        return checks.joined(self.address, API_PORT)

    @property
    def door(self) -> str:
        return checks.joined(self.address, DOOR_PORT)


def checked(wish: Wish, places: Places, *, managed_store: bool) -> Machine:
    """HostError with the first thing that is wrong. Ports are its own once it has certificates."""
    name = checks.name(wish.name or checks.host_name(), "a control plane")
    address = checks.address(wish.address or checks.own_address())
    host, port = checks.server(wish.server or checks.joined(address, API_PORT), API_PORT)
    # A mistake in a file is told before anything is done.
    there = {program: settings.there(_path(program, places), parser()) for program, parser in _PARSERS.items()}
    metrics = there["controlplane"].get("metrics", [checks.joined(address, instance_options.METRICS_PORT)])
    if not Folder(places.trust).exists():
        checks.free(address, [API_PORT, DOOR_PORT], "end that first")
        remedy = "end that first; an etcd that is to hold the cluster is named to `cluster init` with --etcd"
        checks.free(address, [CLIENT_PORT, PEER_PORT] if managed_store else [], remedy)
    if not Folder(places.trust).exists() or "metrics" not in there["controlplane"]:
        for at in metrics:
            where, number = instance_options.split(at)
            checks.free(where, [number], f"or say another as `metrics` in {_path('controlplane', places)}")
    return Machine(name=name, address=address, server=checks.joined(host, port), metrics=metrics)


def certified(places: Places, make: Callable[[Path], None]) -> None:
    """Has certificates made, unless they are there. `make` fills a folder, which may hold what a try has left."""
    own, fresh = Folder(places.trust), beside(places)
    if own.exists():
        own.load(Role.CONTROLPLANE)
        return
    make(fresh)
    _give(fresh)
    if places.trust.exists():
        places.trust.rmdir()  # systemd makes it empty
    fresh.rename(places.trust)


def beside(places: Places) -> Path:
    """Where certificates are until they are complete."""
    return places.trust.with_name(f"{places.trust.name}.new")


def run(machine: Machine, places: Places) -> bool:
    """Writes the configuration, and starts what it is for; False where the person has to start it. Raises HostError."""
    units = [services.INSTANCE]
    if storeplace.load(Folder(places.trust)).member is not None:
        said = {"trust": [str(places.trust)], "data": [str(places.store)]}
        _write("etcd", said, places)
        units.insert(0, services.STORE)
    said = {
        "name": [machine.name],
        "listen": [machine.listens],
        "advertise": [machine.server],
        "door": [machine.door],
        "metrics": list(machine.metrics),
        "state": [str(places.instance)],
        "trust": [str(places.trust)],
    }
    _write("controlplane", said, places)
    for folder in (places.instance, places.store):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give(folder)
    if places.managed:
        services.start(units)
    return places.managed


def left_to_start(places: Places) -> Sequence[str]:
    """The commands for a machine without systemd. Raises NotTrusted."""
    member = storeplace.load(Folder(places.trust)).member
    units = [services.STORE, services.INSTANCE] if member is not None else [services.INSTANCE]
    return ["there is no systemd here; start, each for itself:", *(services.COMMANDS[one] for one in units)]


def _write(program: str, said: Mapping[str, Sequence[str]], places: Places) -> None:
    settings.write(_path(program, places), _PARSERS[program](), said, _OPENINGS[program])


def _path(program: str, places: Places) -> Path:
    return places.configuration / f"{program}.yaml"


def _give(folder: Path) -> None:
    """To the user that the control plane runs as, where the installation has made one."""
    try:
        owner = pwd.getpwnam(OWNER)
    except KeyError:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def wait_until_it_answers(server: str, trust: Path) -> None:
    """HostError when the instance does not answer its first admin in time."""
    deadline, last = time.monotonic() + _ANSWER_S, ""
    while time.monotonic() < deadline:
        try:
            with who.known_by(lambda: trust), client.dialed(server) as channel:
                trust_pb2_grpc.TrustStub(channel).ListMembers(pb.ListMembersRequest(), timeout=client.CALL_TIMEOUT_S)
                return
        except errors.OrchctlError as error:
            last = error.message
        time.sleep(_PAUSE_S)
    raise HostError(f"the control plane does not answer at {server}: {last}", hint="journalctl -u orch-controlplane")

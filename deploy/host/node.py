"""Makes this machine a node: `orchctl node join --token … --server …`.

    checks ─► id and certificate, by the door ─► /etc/orch/agent.yaml ─► orch-agent, until it is ready

The rule: a certificate that was here before is replaced in the moment that the new one is here, and its key is shown
again. So a join that was broken off, wherever, is the same join the next time; one after the node was deleted is a new
one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import options as agent_options
from agent.adapters import whole
from agent.adapters.layout import Layout
from deploy.host import checks, services, settings
from deploy.host.errors import HostError
from deploy.host.places import API_PORT, BLOB_PORT, DOOR_PORT, Places
from trust import errands, joining
from trust.core.identity import Role
from trust.folder import PENDING, Folder, Material

_OPENING = (
    "The agent of this node, as `orchctl node join` has written it. Keys without a value are comments, with what they "
    "are then. After a change: systemctl restart orch-agent; containers do not notice."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for. Empty: it follows from the machine, or from the others."""

    token: str
    server: str
    door: str = ""
    name: str = ""
    address: str = ""


def join(wish: Wish, places: Places, workshop: errands.Workshop | None = None) -> str:
    """Does it, and returns what to tell the person. Raises HostError, NotJoined, NotTrusted.

    `workshop`: one that has been started already, to make the key.
    """
    text = joining.token_of(wish.token, Role.NODE)
    host, port = checks.server(wish.server, API_PORT)
    door = checks.joined(*checks.server(wish.door or checks.joined(host, DOOR_PORT), DOOR_PORT, "--door"))
    name = checks.name(wish.name or checks.host_name(), "a node")
    address = checks.address(wish.address or checks.own_address(host))
    path, parser = places.configuration / "agent.yaml", agent_options.parser()
    there = settings.there(path, parser)  # a mistake in it is told before anything is done
    if not Folder(places.agent_trust).exists():
        _check_ports(address, there, path)
    cluster = _certified(text, door, name, places, workshop)
    settings.write(path, parser, _settings(name, checks.joined(host, port), address, places), _OPENING)
    said = f"node {name} has joined the cluster {cluster}"
    if places.managed:
        services.start([services.AGENT])
        return f"{said}, and its agent runs"
    return f"{said}\nthere is no systemd here; start its agent with: {services.COMMANDS[services.AGENT]}"


def _check_ports(address: str, there: Mapping[str, Sequence[str]], path: Path) -> None:
    """Those that the file has, else the usual ones; 0 is none."""
    for key, usual in (("blob-port", BLOB_PORT), ("metrics-port", agent_options.METRICS_PORT)):
        port = int(there[key][0]) if there.get(key) else usual
        if port:
            checks.free(address, [port], f"or let the agent have another one: `{key}` in {path}")


def _settings(name: str, server: str, address: str, places: Places) -> dict[str, list[str]]:
    found = {"name": name, "server": server, "address": address, "state": str(places.agent)}
    found |= {"trust": str(places.agent_trust), "run-dir": str(places.run)}
    if places.managed:
        found["cgroup-parent"] = services.TASKS_GROUP
    return {key: [text] for key, text in found.items()}


def _certified(text: str, door: str, name: str, places: Places, workshop: errands.Workshop | None) -> str:
    """The id of the cluster that the node has a certificate of now."""
    own = Folder(places.agent_trust)
    try:
        places.agent.mkdir(mode=0o700, parents=True, exist_ok=True)
        node_id = whole.node_id(Layout(places.agent, places.run))
    except OSError as error:
        raise HostError(f"cannot use {places.agent}: {error.strerror}") from error
    if own.exists():
        there = own.load(Role.NODE)
        _check_cluster(text, there)
        own.write(PENDING, there.key)
    wish = joining.Wish(name=node_id, node_name=name)
    found = joining.join(door, text, wish, own, workshop=workshop, anew=True).own
    own.end_join()
    return found.identity.cluster


def _check_cluster(text: str, there: Material) -> None:
    """A node of one cluster does not slip into another."""
    if not joining.is_of(text, there):
        raise HostError(
            f"this machine is a node of the cluster {there.identity.cluster}, and the token is of another, or of a "
            "root that was exchanged while the node was away",
            hint="`orchctl node leave` takes it off this machine; then it may join",
        )

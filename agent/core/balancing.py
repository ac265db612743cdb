"""What one service contributes to the node's nftables table: where its connections go, and who reaches its tasks here.

Two rules: only ready endpoints get new connections, and every task's address counts as its service's, ready or not,
when it comes to who may reach whom.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from agent.core import firewall
from agent.core.firewall import Element, Part
from agent.core.network import Attachment, PublishedPort
from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

_PROTOCOLS = {pb.PROTOCOL_UNSPECIFIED: "tcp", pb.PROTOCOL_TCP: "tcp", pb.PROTOCOL_UDP: "udp"}
_ADDRESS = {
    V4: re.compile(r"\d{1,3}(?:\.\d{1,3}){3}"),
    V6: re.compile(r"[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Whose addresses this node has to know because of its own tasks."""

    networks: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()  # ids of services that an AllowedSource names


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the families of addresses that the node has."""

    family: Family
    subnet: families.Network
    ready: tuple[str, ...] = ()  # as `arrange` has put them


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A service as this node sees it."""

    service: dpb.NetworkService | None  # None: the leader does not tell of it
    attached: tuple[Attachment, ...] = ()  # its tasks here
    sides: tuple[Side, ...]
    watched: Watched = Watched()


def ready_addresses(service: dpb.NetworkService, family: Family) -> list[str]:
    """The addresses that take new connections."""
    return [address for endpoint in service.endpoints if endpoint.ready and (address := _address(endpoint, family))]


def arrange(before: Iterable[str], ready: Iterable[str], *, by_client: bool) -> tuple[str, ...]:
    """The order of the endpoints in the maps. As few as possible change their places: the last ones fill the gaps.
    Where clients are told apart by a hash, the order is the same on every node.

    (a, b, c, d) without b → (a, d, c)
    """
    if by_client:
        return tuple(sorted(set(ready)))
    left = dict.fromkeys(ready)
    places: list[str | None] = [address if address in left else None for address in before]
    fresh = [address for address in left if address not in set(places)]
    kept = [number for number, address in enumerate(places) if address is None]
    for number, address in zip(kept, fresh, strict=False):
        places[number] = address
    result = places + list(fresh[len(kept) :])
    for number in kept[len(fresh) :]:
        while result and result[-1] is None:
            result.pop()
        if number < len(result):
            result[number] = result.pop()
    return tuple(address for address in result if address is not None)


def part_of(view: View) -> Part:
    """Everything that the service contributes."""
    made = _Part()
    for side in view.sides:
        _attached(made, view, side)
        if view.service is not None:
            _virtual_address(made, view.service, side)
            _published_ports(made, view.service, side)
            _members(made, view.service, view, side)
    if view.service is not None:
        _doors(made, view.service, view)
    return made.part()


def _attached(made: "_Part", view: View, side: Side) -> None:
    s = side.family.suffix
    for attachment in view.attached:
        address = _address(attachment, side.family)
        if not address:
            continue
        _host_ports(made, attachment, address, side.family)
        made.add(f"hairpin{s}", f"{address} . {address}")
        if view.service is None or view.service.internal:  # what nobody knows anything of reaches nothing outside
            made.add(f"internal{s}", address)


def watched_by(services: Iterable[dpb.NetworkService]) -> Watched:
    """What a node with tasks of these services has to know."""
    services = list(services)
    return Watched(
        networks=frozenset(network for service in services for network in service.networks),
        sources=frozenset(allowed.service_id for service in services for allowed in service.allow),
    )


def members_set(network: str, family: Family) -> str:
    """The set of all addresses in a network: names of networks are longer than nft takes."""
    return f"net{family.suffix}-{_digest(network)}"


def source_set(service_id: str, family: Family) -> str:
    """The set of all addresses of a service."""
    return f"from{family.suffix}-{_digest(service_id)}"


def door_chain(service: str) -> str:
    """The chain that says who may reach the tasks of a service."""
    return f"to-{_digest(service)}"


class _Part:
    """A Part in the making."""

    def __init__(self) -> None:
        self.elements: dict[Element, str] = {}
        self.chains: dict[str, tuple[str, ...]] = {}
        self.sets: set[str] = set()
        self.balancers: set[str] = set()
        self.udp_targets: set[tuple[str, bool]] = set()
        self.udp_ports: set[int] = set()

    def add(self, name: str, key: str, value: str = "") -> None:
        self.elements[name, key] = value

    def balance(self, source: str, count: int, *, by_client: bool) -> str:
        name = firewall.balancer(source, count, by_client=by_client)
        self.balancers.add(name)
        return f"goto {name}"

    def part(self) -> Part:
        return Part(
            elements=self.elements,
            chains=self.chains,
            sets=frozenset(self.sets),
            balancers=frozenset(self.balancers),
            udp_targets=frozenset(self.udp_targets),
            udp_ports=frozenset(self.udp_ports),
        )


def _virtual_address(made: _Part, service: dpb.NetworkService, side: Side) -> None:
    address, ready, s = _address(service, side.family), side.ready, side.family.suffix
    if not address:
        return
    for name in ("addresses", "requests", "refusals", "traffic"):
        made.add(f"{name}{s}", address)
    for place, endpoint in enumerate(ready):
        made.add(f"endpoints{s}", f"{address} . {place}", endpoint)
    for port in service.ports if ready else ():
        goto = made.balance(f"endpoints{s}", len(ready), by_client=_by_client(service))
        made.add(f"services{s}", f"{address} . {_PROTOCOLS[port.protocol]} . {port.target}", goto)
        if port.protocol == pb.PROTOCOL_UDP:
            made.udp_targets.update((endpoint, False) for endpoint in ready)


def _published_ports(made: _Part, service: dpb.NetworkService, side: Side) -> None:
    published = [port for port in service.ports if port.published and port.mode == pb.PUBLISH_MODE_INGRESS]
    if not published:
        return
    ready = side.ready
    if service.external_traffic_policy == pb.EXTERNAL_TRAFFIC_POLICY_LOCAL:
        ready = tuple(address for address in ready if ip_address(address) in side.subnet)
    own = {side.family.get(endpoint, "address"): endpoint.ports for endpoint in service.endpoints}
    for port in published:
        found = ((address, _target(port, own.get(address) or service.ports)) for address in ready)
        targets = [f"{address} . {target}" for address, target in found if target]
        _open(made, port, targets, side.family, by_client=_by_client(service))
        if port.protocol == pb.PROTOCOL_UDP:
            made.udp_targets.update((address, False) for address in ready)


def _target(port: pb.Port, own: Iterable[pb.Port]) -> int:
    """Where a task takes what comes to a port of its service; 0: nowhere. A task of an older revision may know the port
    under its published number, its name or its target, in this order.
    """
    same = [one for one in own if _PROTOCOLS[one.protocol] == _PROTOCOLS[port.protocol]]
    by_number = [one.target for one in same if one.published == port.published]
    by_name = [one.target for one in same if one.name and one.name == port.name]
    by_target = [one.target for one in same if one.target == port.target]
    return next(iter([*by_number, *by_name, *by_target]), 0)


def _host_ports(made: _Part, attachment: Attachment, address: str, family: Family) -> None:
    for port in attachment.ports:
        _open(made, port, [f"{address} . {port.target}"], family, by_client=False)
        if port.protocol == pb.PROTOCOL_UDP:
            made.udp_targets.add((address, True))


def _open(made: _Part, port: pb.Port | PublishedPort, targets: list[str], family: Family, *, by_client: bool) -> None:
    """Lead a port of the node to the targets; to none: refuse."""
    protocol, published, s = _PROTOCOLS[port.protocol], port.published, family.suffix
    key = f"{protocol} . {published}"
    made.add("published-requests", key)
    made.add(f"published-traffic-{protocol}", str(published))
    if not targets:
        made.add(f"closed{s}", key)
        return
    source = f"outside-{protocol}{s}"
    made.add(f"published{s}", key, made.balance(source, len(targets), by_client=by_client))
    for place, target in enumerate(targets):
        made.add(source, f"{published} . {place}", target)
    if port.protocol == pb.PROTOCOL_UDP:
        made.udp_ports.add(published)


def _members(made: _Part, service: dpb.NetworkService, view: View, side: Side) -> None:
    """Its addresses, where this node has to know them."""
    family, watched = side.family, view.watched
    addresses = {address for endpoint in service.endpoints if (address := _address(endpoint, family))}
    addresses.update(address for attachment in view.attached if (address := _address(attachment, family)))
    names = [f"known{family.suffix}"]
    names += [members_set(network, family) for network in service.networks if network in watched.networks]
    if service.id in watched.sources:
        names.append(source_set(service.id, family))
    for name in names:
        for address in addresses:
            made.elements[name, address] = ""


def _doors(made: _Part, service: dpb.NetworkService, view: View) -> None:
    """Who may reach its tasks here."""
    if not view.attached:
        return
    name = door_chain(view.attached[0].service)
    made.chains[name] = tuple(_door_rules(service, view.sides))
    for side in view.sides:
        made.sets.update(members_set(network, side.family) for network in service.networks)
        made.sets.update(source_set(allowed.service_id, side.family) for allowed in service.allow)
        for attachment in view.attached:
            if address := _address(attachment, side.family):
                made.add(f"tasks{side.family.suffix}", address, f"goto {name}")
                made.add(f"barred{side.family.suffix}", address)


def _door_rules(service: dpb.NetworkService, sides: Iterable[Side]) -> Iterable[str]:
    for side in sides:
        ip = f"ip{side.family.suffix}"
        for network in service.networks:
            yield f"{ip} saddr @{members_set(network, side.family)} accept"
        for allowed in service.allow:
            ports = [f"{_PROTOCOLS[port.protocol]} . {port.target}" for port in allowed.ports or service.ports]
            if ports:
                listed, source = ", ".join(dict.fromkeys(ports)), source_set(allowed.service_id, side.family)
                yield f"{ip} saddr @{source} meta l4proto . th dport {{ {listed} }} accept"
    yield "goto stranger"


def _address(holder: dpb.NetworkService | dpb.Endpoint | Attachment, family: Family) -> str:
    """Its address of that family; empty when it has none, or something that is none."""
    address = family.get(holder, "address")
    return address if _ADDRESS[family].fullmatch(address) else ""


def _by_client(service: dpb.NetworkService) -> bool:
    return service.session_affinity == pb.SESSION_AFFINITY_CLIENT_IP


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""What one service contributes to the node's nftables table: where its connections go, and who reaches its tasks here.

Two rules: only ready endpoints get new connections, and every task's address counts as its service's, ready or not,
when it comes to who may reach whom.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from agent.core import firewall
from agent.core.firewall import Element, Part
from agent.core.network import Attachment
from protos.orch.v1 import dispatcher_pb2 as dpb
from protos.orch.v1 import objects_pb2 as pb

_PROTOCOLS = {pb.PROTOCOL_UNSPECIFIED: "tcp", pb.PROTOCOL_TCP: "tcp", pb.PROTOCOL_UDP: "udp"}
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Whose addresses this node has to know because of its own tasks."""

    networks: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()  # ids of services that an AllowedSource names


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A service as this node sees it."""

    service: dpb.NetworkService | None  # None: the leader does not tell of it
    attached: tuple[Attachment, ...] = ()  # its tasks here
    ready: tuple[str, ...] = ()  # as `arrange` has put them
    subnet: IPv4Network
    watched: Watched = Watched()


def ready_addresses(service: dpb.NetworkService) -> list[str]:
    """The addresses that take new connections."""
    return [
        endpoint.address for endpoint in service.endpoints if endpoint.ready and _ADDRESS.fullmatch(endpoint.address)
    ]


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
    for attachment in view.attached:
        _host_ports(made, attachment)
        made.add("hairpin", f"{attachment.address} . {attachment.address}")
        if view.service is None or view.service.internal:  # what nobody knows anything of reaches nothing outside
            made.add("internal", attachment.address)
    if view.service is not None:
        _virtual_address(made, view.service, view.ready)
        _published_ports(made, view.service, view)
        _members(made, view.service, view)
        _doors(made, view.service, view)
    return made.part()


def watched_by(services: Iterable[dpb.NetworkService]) -> Watched:
    """What a node with tasks of these services has to know."""
    services = list(services)
    return Watched(
        networks=frozenset(network for service in services for network in service.networks),
        sources=frozenset(allowed.service_id for service in services for allowed in service.allow),
    )


def members_set(network: str) -> str:
    """The set of all addresses in a network: names of networks are longer than nft takes."""
    return f"net-{_digest(network)}"


def source_set(service_id: str) -> str:
    """The set of all addresses of a service."""
    return f"from-{_digest(service_id)}"


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


def _virtual_address(made: _Part, service: dpb.NetworkService, ready: tuple[str, ...]) -> None:
    if not service.address or not _ADDRESS.fullmatch(service.address):
        return
    for name in ("addresses", "requests", "refusals", "traffic"):
        made.add(name, service.address)
    for place, address in enumerate(ready):
        made.add("endpoints", f"{service.address} . {place}", address)
    for port in service.ports if ready else ():
        goto = made.balance("endpoints", len(ready), by_client=_by_client(service))
        made.add("services", f"{service.address} . {_PROTOCOLS[port.protocol]} . {port.target}", goto)
        if port.protocol == pb.PROTOCOL_UDP:
            made.udp_targets.update((address, False) for address in ready)


def _published_ports(made: _Part, service: dpb.NetworkService, view: View) -> None:
    ready = view.ready
    if service.external_traffic_policy == pb.EXTERNAL_TRAFFIC_POLICY_LOCAL:
        ready = tuple(address for address in ready if IPv4Address(address) in view.subnet)
    own = {endpoint.address: endpoint.ports for endpoint in service.endpoints}
    for port in service.ports:
        if port.published and port.mode == pb.PUBLISH_MODE_INGRESS:
            found = ((address, _target(port, own.get(address) or service.ports)) for address in ready)
            targets = [f"{address} . {target}" for address, target in found if target]
            _open(made, port.protocol, port.published, targets, by_client=_by_client(service))
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


def _host_ports(made: _Part, attachment: Attachment) -> None:
    for port in attachment.ports:
        _open(made, port.protocol, port.published, [f"{attachment.address} . {port.target}"], by_client=False)
        if port.protocol == pb.PROTOCOL_UDP:
            made.udp_targets.add((attachment.address, True))


def _open(made: _Part, protocol: pb.Protocol.ValueType, published: int, targets: list[str], *, by_client: bool) -> None:
    """Lead a port of the node to the targets; to none: refuse."""
    key = f"{_PROTOCOLS[protocol]} . {published}"
    made.add("published-requests", key)
    made.add(f"published-traffic-{_PROTOCOLS[protocol]}", str(published))
    if not targets:
        made.add("closed", key)
        return
    source = f"outside-{_PROTOCOLS[protocol]}"
    made.add("published", key, made.balance(source, len(targets), by_client=by_client))
    for place, target in enumerate(targets):
        made.add(source, f"{published} . {place}", target)
    if protocol == pb.PROTOCOL_UDP:
        made.udp_ports.add(published)


def _members(made: _Part, service: dpb.NetworkService, view: View) -> None:
    """Its addresses, where this node has to know them."""
    addresses = {endpoint.address for endpoint in service.endpoints if _ADDRESS.fullmatch(endpoint.address)}
    addresses.update(attachment.address for attachment in view.attached)
    names = ["known", *(members_set(network) for network in service.networks if network in view.watched.networks)]
    if service.id in view.watched.sources:
        names.append(source_set(service.id))
    for name in names:
        for address in addresses:
            made.elements[name, address] = ""


def _doors(made: _Part, service: dpb.NetworkService, view: View) -> None:
    """Who may reach its tasks here."""
    if not view.attached:
        return
    name = door_chain(view.attached[0].service)
    made.chains[name] = tuple(_door_rules(service))
    made.sets.update(members_set(network) for network in service.networks)
    made.sets.update(source_set(allowed.service_id) for allowed in service.allow)
    for attachment in view.attached:
        made.add("tasks", attachment.address, f"goto {name}")
        made.add("barred", attachment.address)


def _door_rules(service: dpb.NetworkService) -> Iterable[str]:
    for network in service.networks:
        yield f"ip saddr @{members_set(network)} accept"
    for allowed in service.allow:
        ports = [f"{_PROTOCOLS[port.protocol]} . {port.target}" for port in allowed.ports or service.ports]
        if ports:
            listed = ", ".join(dict.fromkeys(ports))
            yield f"ip saddr @{source_set(allowed.service_id)} meta l4proto . th dport {{ {listed} }} accept"
    yield "goto stranger"


def _by_client(service: dpb.NetworkService) -> bool:
    return service.session_affinity == pb.SESSION_AFFINITY_CLIENT_IP


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

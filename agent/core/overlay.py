"""The way from this node to the tasks of the others: what there should be of it, as values.

Every way is one route, to a peer's subnet, of one of two kinds. *Plain*: the peer is the next hop, on a segment that
both share. *Tunnelled*: the packet goes into the VXLAN device, which finds out nothing by itself. That device learns no
addresses, floods nothing and joins no group; all that it uses is written down from what the leader says:

    route      10.112.2.0/24 → next hop 10.112.2.1, on the device
    neighbour  10.112.2.1 → 02:6f:0a:70:02:01           the hardware address is computed from the address
    forwarding 02:6f:0a:70:02:01 → 192.0.2.12           the node's own address: where the outer packet goes

IPv6 goes the same ways. A plain route needs a next hop of its own family, and a node has one address: where that is one
of IPv4, each node has a link-local address computed from it on the segment, 192.0.2.12 → fe80::6f72:6368:c000:20c. A
route of IPv4 takes a next hop of IPv6 as it is. In the tunnel a node has one hardware address for both families.

Sizes: a packet in the tunnel gets 20 (IPv4) + 8 (UDP) + 8 (VXLAN) + 14 (Ethernet) = 50 bytes longer. A node's device of
1500 bytes leaves tasks 1450. Between nodes with addresses of IPv6 it is 70 bytes, since that header has 40.
"""

import functools
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from protos import families
from protos.families import V4, V6, Family
from protos.orch.v1 import dispatcher_pb2 as dpb

DEVICE = "orch-vx"
VNI = 0x6F7263
PORT = 4789
"""The number that IANA gave to VXLAN: the one that firewalls, network cards and analysers know."""

TUNNEL_BYTES: Final = {V4: 50, V6: 70}
DEFAULT_MTU = 1500
MIN_MTU: Final = {V4: 576, V6: 1280}
"""The least that every host takes (RFC 791, RFC 8200)."""
LINK_LOCAL: Final = b"\xfe\x80" + bytes(6) + b"orch"
"""What our link-local addresses begin with; the node's own address follows."""
MAX_MTU = 65_535
"""Loopback's is larger, and fits no other device."""

OUR_DEVICES = ("orch0", "orch-")
"""What the names of our devices begin with."""


class Impossible(ValueError):  # noqa: N818 - named after what is so
    """The network cannot be as the leader says on this node; the text names what stands against what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way to a range. `device` is an index; 0: the kernel's choice, by the gateway."""

    destination: str
    gateway: str = ""
    device: int = 0
    onlink: bool = False  # the gateway is on the device although no address of the device says so
    source: str = ""  # the address that the node itself then speaks from


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """The VXLAN device, and whom it leads to."""

    local: str
    hardware_address: bytes
    mtu: int
    neighbours: Mapping[str, bytes]
    forwarding: Mapping[bytes, str]
    routes: tuple[Route, ...]  # on the device, whose index is known once it is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What there should be; `unreachable` are peers that `routes` leads nowhere to, with the reason."""

    mtu: int
    routes: tuple[Route, ...]
    tunnel: Tunnel | None
    unreachable: tuple[str, ...] = ()
    link_local: str = ""
    link_local_devices: frozenset[int] = frozenset()
    """The devices to segments on which this node is a next hop for IPv6 by that address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The device that has the node's own address."""

    name: str
    mtu: int


def plan(
    network: dpb.NodeNetwork,
    node_address: str,
    underlay: Underlay,
    segments: Mapping[str, int],
    *,
    sources: Collection[str] = (),
) -> Plan:
    """What there should be. `segments`: the addresses of the peers on a segment with this node, and the device that
    leads there. `sources`: the gateway addresses, once a device has them. Raises Impossible.
    """
    mode, outer = network.mode or dpb.NETWORK_MODE_AUTO, families.of(node_address)
    peers = [peer for peer in network.peers if families.every(peer, "subnet") and peer.address]
    strange = [peer for peer in peers if families.of(peer.address) is not outer]
    alike = [peer for peer in peers if families.of(peer.address) is outer]
    plain = segments if mode != dpb.NETWORK_MODE_VXLAN else {}
    near = [peer for peer in alike if peer.address in plain]
    far = [peer for peer in alike if peer.address not in plain]
    tunnelled = mode == dpb.NETWORK_MODE_VXLAN or (mode == dpb.NETWORK_MODE_AUTO and bool(far))
    had = families.told(network, "subnet")
    mtu = _mtu(network.mtu, underlay, outer=outer, had=had, tunnelled=tunnelled)
    by_link_local = V6 in had and outer is V4
    return Plan(
        mtu=mtu,
        routes=tuple(_plain_routes(near, had, segments, sources)),
        tunnel=_tunnel(network, node_address, far, mtu, sources) if tunnelled else None,
        unreachable=(
            *(_of_another_family(peer, node_address) for peer in strange),
            *(_unreachable(peer, node_address) for peer in far if not tunnelled),
        ),
        link_local=link_local(node_address) if by_link_local else "",
        link_local_devices=frozenset(segments[peer.address] for peer in near if by_link_local),
    )


def gateway(subnet: str) -> str:
    """The address of the node itself among its tasks: the first one of its subnet."""
    return str(ip_network(subnet)[1])


def hardware_address(address: str) -> bytes:
    """10.1.2.3 → 02:6f:0a:01:02:03; the 2 says that it is locally administered.

    Of an IPv6 address, its four words of 32 bits are laid over each other. Subnets of one range differ in fewer bits
    than that, one after the other, so no two get the same.
    """
    packed = families.packed(address)
    words = (int.from_bytes(packed[start : start + 4], "big") for start in range(0, len(packed), 4))
    return b"\x02\x6f" + functools.reduce(operator.xor, words).to_bytes(4, "big")


def link_local(node_address: str) -> str:
    """By which a node is a next hop for IPv6 on a segment that it has an IPv4 address on."""
    return str(IPv6Address(LINK_LOCAL + families.packed(node_address)))


def _plain_routes(
    near: Iterable[dpb.NetworkPeer], had: Iterable[Family], segments: Mapping[str, int], sources: Collection[str]
) -> Iterator[Route]:
    for peer in near:
        for family in had:
            subnet, to_peer = family.get(peer, "subnet"), peer.address
            next_hop = link_local(to_peer) if family is V6 and families.of(to_peer) is V4 else to_peer
            if subnet:
                source = _of_family(sources, family)
                yield Route(destination=subnet, gateway=next_hop, device=segments[to_peer], source=source)


def _of_family(addresses: Iterable[str], family: Family) -> str:
    return next((address for address in addresses if families.of(address) is family), "")


def conflict(
    ranges: Mapping[str, str], addresses: Mapping[str, str], routes: Mapping[str, tuple[str, bool]]
) -> str | None:
    """What of the node lies inside the cluster's ranges; None when nothing does.

    `ranges` by what they are for; `addresses` → the device that has each; `routes`: destination → device, and whether
    it leads through a gateway. A wider route through a gateway is no conflict: ours are narrower, and go first.
    """
    for purpose, text in ranges.items():
        mine = ip_network(text)
        for address, device in addresses.items():
            if not device.startswith(OUR_DEVICES) and ip_address(address) in mine:
                return f"device {device} has the address {address}, which lies in the {purpose} {text}"
        for destination, (device, is_remote) in routes.items():
            other = ip_network(destination)
            wider = other.prefixlen <= mine.prefixlen
            harmless = device.startswith(OUR_DEVICES) or (is_remote and wider) or other.prefixlen == 0
            if not harmless and families.overlapping([mine, other]):
                return f"the route to {destination} on device {device} overlaps the {purpose} {text}"
    return None


def _mtu(asked: int, underlay: Underlay, *, outer: Family, had: Collection[Family], tunnelled: bool) -> int:
    whole = underlay.mtu if underlay.mtu <= MAX_MTU else DEFAULT_MTU
    least, tunnel_bytes = MIN_MTU[V6 if V6 in had else V4], TUNNEL_BYTES[outer]
    most = whole - tunnel_bytes if tunnelled else whole
    why = f"device {underlay.name} takes {whole}" + (f", and VXLAN needs {tunnel_bytes} of it" if tunnelled else "")
    if asked and asked < least:
        raise Impossible(f"an MTU of {asked} bytes is too small: the least is {least}")
    if asked > most:
        raise Impossible(f"an MTU of {asked} bytes is too large: {most} fit, as {why}")
    if most < least:
        raise Impossible(f"an MTU of {most} bytes is too small: the least is {least}; {why}")
    return asked or most


def _tunnel(
    network: dpb.NodeNetwork,
    node_address: str,
    peers: Collection[dpb.NetworkPeer],
    mtu: int,
    sources: Collection[str],
) -> Tunnel:
    had = families.told(network, "subnet")
    subnets = [(family, subnet, peer) for peer in peers for family in had if (subnet := family.get(peer, "subnet"))]
    return Tunnel(
        local=node_address,
        hardware_address=_card(network),
        mtu=mtu,
        neighbours={gateway(subnet): _card(peer) for _, subnet, peer in subnets},
        forwarding={_card(peer): peer.address for peer in peers},
        routes=tuple(
            Route(destination=subnet, gateway=gateway(subnet), onlink=True, source=_of_family(sources, family))
            for family, subnet, _ in subnets
        ),
    )


def _card(node: dpb.NodeNetwork | dpb.NetworkPeer) -> bytes:
    """The hardware address of a node in the tunnel, for both families: that of its first gateway address."""
    return hardware_address(gateway(families.every(node, "subnet")[0]))


def _of_another_family(peer: dpb.NetworkPeer, node_address: str) -> str:
    return (
        f"node {peer.node_id} at {peer.address} and this one ({node_address}) have addresses of different families; "
        "give the agents an --address of the same one"
    )


def _unreachable(peer: dpb.NetworkPeer, node_address: str) -> str:
    return (
        f"node {peer.node_id} at {peer.address} is on no segment with this one ({node_address}), "
        "which the network mode `routes` needs"
    )

"""The way from this node to the tasks of the others: what there should be of it, as values.

Every way is one route, to a peer's subnet, of one of two kinds. *Plain*: the peer is the next hop, on a segment that
both share. *Tunnelled*: the packet goes into the VXLAN device, which finds out nothing by itself. That device learns no
addresses, floods nothing and joins no group; all that it uses is written down from what the leader says:

    route      10.112.2.0/24 → next hop 10.112.2.1, on the device
    neighbour  10.112.2.1 → 02:6f:0a:70:02:01           the hardware address is computed from the address
    forwarding 02:6f:0a:70:02:01 → 192.0.2.12           the node's own address: where the outer packet goes

Sizes: a packet in the tunnel gets 20 (IPv4) + 8 (UDP) + 8 (VXLAN) + 14 (Ethernet) = 50 bytes longer. A node's device of
1500 bytes leaves tasks 1450.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from protos.orch.v1 import dispatcher_pb2 as dpb

DEVICE = "orch-vx"
VNI = 0x6F7263
PORT = 4789
"""The number that IANA gave to VXLAN: the one that firewalls, network cards and analysers know."""

TUNNEL_BYTES = 50
DEFAULT_MTU = 1500
MIN_MTU = 576
"""The least that every IPv4 host takes (RFC 791)."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """The device that has the node's own address."""

    name: str
    mtu: int


def plan(
    network: dpb.NodeNetwork, node_address: str, underlay: Underlay, segments: Mapping[str, int], *, source: str
) -> Plan:
    """What there should be. `segments`: the addresses of the peers on a segment with this node, and the device that
    leads there. `source`: the gateway address, once a device has it. Raises Impossible.
    """
    mode = network.mode or dpb.NETWORK_MODE_AUTO
    peers = [peer for peer in network.peers if peer.subnet and peer.address]
    plain = segments if mode != dpb.NETWORK_MODE_VXLAN else {}
    near = [peer for peer in peers if peer.address in plain]
    far = [peer for peer in peers if peer.address not in plain]
    tunnelled = mode == dpb.NETWORK_MODE_VXLAN or (mode == dpb.NETWORK_MODE_AUTO and bool(far))
    mtu = _mtu(network.mtu, underlay, tunnelled=tunnelled)
    return Plan(
        mtu=mtu,
        routes=tuple(
            Route(destination=peer.subnet, gateway=peer.address, device=segments[peer.address], source=source)
            for peer in near
        ),
        tunnel=_tunnel(network, node_address, far, mtu, source=source) if tunnelled else None,
        unreachable=() if tunnelled else tuple(_unreachable(peer, node_address) for peer in far),
    )


def gateway(subnet: str) -> str:
    """The address of the node itself among its tasks: the first one of its subnet."""
    return str(IPv4Network(subnet)[1])


def hardware_address(address: str) -> bytes:
    """10.1.2.3 → 02:6f:0a:01:02:03; the 2 says that it is locally administered."""
    return b"\x02\x6f" + IPv4Address(address).packed


def conflict(
    ranges: Mapping[str, str], addresses: Mapping[str, str], routes: Mapping[str, tuple[str, bool]]
) -> str | None:
    """What of the node lies inside the cluster's ranges; None when nothing does.

    `ranges` by what they are for; `addresses` → the device that has each; `routes`: destination → device, and whether
    it leads through a gateway. A wider route through a gateway is no conflict: ours are narrower, and go first.
    """
    for purpose, text in ranges.items():
        mine = IPv4Network(text)
        for address, device in addresses.items():
            if not device.startswith(OUR_DEVICES) and IPv4Address(address) in mine:
                return f"device {device} has the address {address}, which lies in the {purpose} {text}"
        for destination, (device, is_remote) in routes.items():
            other = IPv4Network(destination)
            harmless = device.startswith(OUR_DEVICES) or (is_remote and mine.subnet_of(other)) or other.prefixlen == 0
            if not harmless and mine.overlaps(other):
                return f"the route to {destination} on device {device} overlaps the {purpose} {text}"
    return None


def _mtu(asked: int, underlay: Underlay, *, tunnelled: bool) -> int:
    whole = underlay.mtu if underlay.mtu <= MAX_MTU else DEFAULT_MTU
    most = whole - TUNNEL_BYTES if tunnelled else whole
    why = f"device {underlay.name} takes {whole}" + (f", and VXLAN needs {TUNNEL_BYTES} of it" if tunnelled else "")
    if asked and asked < MIN_MTU:
        raise Impossible(f"an MTU of {asked} bytes is too small: the least is {MIN_MTU}")
    if asked > most:
        raise Impossible(f"an MTU of {asked} bytes is too large: {most} fit, as {why}")
    if most < MIN_MTU:
        raise Impossible(f"an MTU of {most} bytes is too small: the least is {MIN_MTU}; {why}")
    return asked or most


def _tunnel(
    network: dpb.NodeNetwork, node_address: str, peers: list[dpb.NetworkPeer], mtu: int, *, source: str
) -> Tunnel:
    gateways = {peer.subnet: gateway(peer.subnet) for peer in peers}
    return Tunnel(
        local=node_address,
        hardware_address=hardware_address(gateway(network.subnet)),
        mtu=mtu,
        neighbours={address: hardware_address(address) for address in gateways.values()},
        forwarding={hardware_address(gateways[peer.subnet]): peer.address for peer in peers},
        routes=tuple(
            Route(destination=subnet, gateway=address, onlink=True, source=source)
            for subnet, address in gateways.items()
        ),
    )


def _unreachable(peer: dpb.NetworkPeer, node_address: str) -> str:
    return (
        f"node {peer.node_id} at {peer.address} is on no segment with this one ({node_address}), "
        "which the network mode `routes` needs"
    )

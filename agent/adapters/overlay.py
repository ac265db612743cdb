"""Makes the way to the other nodes equal to what the leader says: routes, and the VXLAN device with its tables.

Two rules: what is there is read first, and only what differs is changed, so that packets on their way to other nodes
notice nothing; and whatever on our device, or among our routes to other nodes, is not in the plan goes.

The order keeps every moment harmless. The device, its neighbours and forwarding entries come before the routes that
need them; what is not wanted any more goes after them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from ipaddress import ip_address

import structlog

from agent.adapters import routes, vxlan
from agent.adapters.netlink import Netlink
from agent.core import overlay
from agent.core.overlay import Plan, Route, Tunnel, Underlay
from agent.errors import Temporary
from protos import families
from protos.families import V6
from protos.orch.v1 import dispatcher_pb2 as dpb

log = structlog.get_logger()

_LINK_LOCAL_BITS = 64


class Overlay:
    """One for the agent. Its only memory is which peers were named in the log as out of reach."""

    def __init__(self) -> None:
        self._unreachable: tuple[str, ...] = ()

    def configure(self, netlink: Netlink, network: dpb.NodeNetwork, node_address: str) -> int:
        """Make it so; returns the largest packet of tasks, in bytes. Blocks.

        The node's device for tasks has its gateway address by then, so that the node itself speaks from it to tasks
        elsewhere. Raises OSError, and Temporary when what the leader says does not fit this node.
        """
        try:
            plan = plan_of(netlink, network, node_address)
        except overlay.Impossible as error:
            raise Temporary(str(error), reason="NetworkImpossible") from error
        self._complain(plan)
        _set_link_local(netlink, plan)
        present = {found.route for found in routes.read(netlink) if found.is_ours}
        if plan.tunnel is None:
            _set_routes(netlink, present, plan.routes)
            if vxlan.find(netlink, overlay.DEVICE) is not None:
                netlink.delete_link(overlay.DEVICE)
        else:
            device = _make_device(netlink, plan.tunnel)
            _set_table(netlink, device, plan.tunnel)
            _set_routes(netlink, present, (*plan.routes, *_on(device, plan.tunnel.routes)))
        return plan.mtu

    def _complain(self, plan: Plan) -> None:
        for why in plan.unreachable:
            if why not in self._unreachable:
                log.warning("the tasks of a node cannot be reached", why=why)
        self._unreachable = plan.unreachable


def plan_of(netlink: Netlink, network: dpb.NodeNetwork, node_address: str) -> Plan:
    """What there should be on this node. Raises Impossible and OSError."""
    addresses = netlink.addresses()
    links = {link.index: link for link in netlink.links()}
    index = addresses.get(node_address)
    if index is None:
        raise overlay.Impossible(
            f"no device of this node has the address {node_address}, by which other nodes are to reach it; "
            "give the agent another --address"
        )
    names = {index: link.name for index, link in links.items()}
    _refuse_conflict(netlink, network, addresses, names)
    segments = {
        peer.address: device
        for peer in network.peers
        if peer.address and (device := routes.segment_of(netlink, peer.address)) is not None
    }
    gateways = [overlay.gateway(subnet) for subnet in families.every(network, "subnet")]
    return overlay.plan(
        network,
        node_address,
        Underlay(name=names[index], mtu=links[index].mtu),
        segments,
        sources=[gateway for gateway in gateways if gateway in addresses],
    )


def _refuse_conflict(
    netlink: Netlink, network: dpb.NodeNetwork, addresses: Mapping[str, int], names: Mapping[int, str]
) -> None:
    """Raises Impossible."""
    ranges = {
        "cluster's range": network.cluster_range,
        "services' range": network.service_range,
        "cluster's IPv6 range": network.cluster_range6,
        "services' IPv6 range": network.service_range6,
    }
    foreign = {
        found.route.destination: (names.get(found.route.device, "-"), bool(found.route.gateway))
        for found in routes.read(netlink)
        if not found.is_ours
    }
    why = overlay.conflict(
        {purpose: text for purpose, text in ranges.items() if text},
        {address: names.get(index, "-") for address, index in addresses.items()},
        foreign,
    )
    if why is not None:
        raise overlay.Impossible(
            f"{why}; give the control plane another --cluster-range or --service-range, or this node another address"
        )


def _make_device(netlink: Netlink, tunnel: Tunnel) -> int:
    """Its index. What a device is made with cannot be changed, but for the MTU."""
    wanted = vxlan.Settings(
        vni=overlay.VNI, port=overlay.PORT, local=tunnel.local, hardware_address=tunnel.hardware_address
    )
    device = vxlan.find(netlink, overlay.DEVICE)
    if device is not None and device.settings != wanted:
        netlink.delete_link(overlay.DEVICE)
        device = None
    if device is None:
        vxlan.add(netlink, overlay.DEVICE, wanted, mtu=tunnel.mtu)
        device = vxlan.find(netlink, overlay.DEVICE)
        assert device is not None, "the device that was just made"
    if device.mtu != tunnel.mtu:
        netlink.set_mtu(device.index, tunnel.mtu)
    if not device.is_up:
        netlink.set_up(device.index)
    return device.index


def _set_table(netlink: Netlink, device: int, tunnel: Tunnel) -> None:
    """Both tables: what is missing or wrong is set, what is not wanted goes."""
    _equalise(
        vxlan.forwarding(netlink, device),
        {key: families.packed(node) for key, node in tunnel.forwarding.items()},
        remove=lambda entry: vxlan.delete_forwarding(netlink, device, entry),
        add=lambda key, value: vxlan.set_forwarding(netlink, device, key, str(ip_address(value))),
    )
    _equalise(
        vxlan.neighbours(netlink, device),
        {families.packed(address): hardware for address, hardware in tunnel.neighbours.items()},
        remove=lambda entry: vxlan.delete_neighbour(netlink, device, entry),
        add=lambda key, value: netlink.set_neighbour(device, str(ip_address(key)), value),
    )


def _equalise(
    present: list[vxlan.Entry],
    wanted: Mapping[bytes, bytes],
    *,
    remove: Callable[[vxlan.Entry], None],
    add: Callable[[bytes, bytes], None],
) -> None:
    right = set()
    for entry in present:
        if entry.is_plain and wanted.get(entry.key) == entry.value:
            right.add(entry.key)
        else:
            remove(entry)
    for key in wanted.keys() - right:
        add(key, wanted[key])


def _on(device: int, some: tuple[Route, ...]) -> tuple[Route, ...]:
    return tuple(dataclasses.replace(route, device=device) for route in some)


def _set_routes(netlink: Netlink, present: set[Route], wanted: tuple[Route, ...]) -> None:
    held = {route.destination for route in present}
    for route in wanted:
        if route not in present:
            if route.destination in held and families.of(route.destination) is V6:
                # The kernel would hold the new next hop against the old route, which leads to it by another device.
                netlink.delete_route(route.destination)
            routes.add(netlink, route)
    kept = {route.destination for route in wanted}
    for route in present:
        if route.destination not in kept:
            netlink.delete_route(route.destination)


def _set_link_local(netlink: Netlink, plan: Plan) -> None:
    """Before the routes, which others have to us and we have to them."""
    wanted = {(plan.link_local, device) for device in plan.link_local_devices}
    present = set(_link_locals(netlink))
    for address, device in present - wanted:
        netlink.delete_address(device, address, _LINK_LOCAL_BITS)
    for address, device in wanted - present:
        netlink.add_address(device, address, _LINK_LOCAL_BITS)


def _link_locals(netlink: Netlink) -> list[tuple[str, int]]:
    """Those of ours, with their devices."""
    return [pair for pair in netlink.address_pairs() if families.packed(pair[0]).startswith(overlay.LINK_LOCAL)]


def leave(netlink: Netlink) -> None:
    """Take everything of the way to other nodes away. Raises OSError."""
    for address, device in _link_locals(netlink):
        netlink.delete_address(device, address, _LINK_LOCAL_BITS)
    for found in routes.read(netlink):
        if found.is_ours:
            netlink.delete_route(found.route.destination)
    netlink.delete_link(overlay.DEVICE)

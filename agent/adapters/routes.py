"""The kernel's routes: those of ours, those of others, and the way that a packet would take.

One rule: a route of ours has our protocol number, so that nobody else's is ever changed.
"""

import errno
import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from agent.adapters import netlink as rtnetlink
from agent.adapters.netlink import Netlink
from agent.adapters.netlink_format import attribute, family_of
from agent.adapters.netlink_format import attributes as read_attributes
from agent.core.overlay import Route

RTA_PREFSRC, RTA_VIA = 7, 18
RTNH_F_ONLINK = 4
RTN_UNICAST = 1

_HEADER = struct.Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, protocol, scope, type, flags
_ANYWHERE = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A route of the main table. `is_ours`: made by us, and through a gateway, as every way to another node is."""

    route: Route
    is_ours: bool


def read(netlink: Netlink) -> list[Found]:
    """Every route of the main table that leads somewhere."""
    body = _HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
    replies = netlink.request(rtnetlink.RTM_GETROUTE, rtnetlink.NLM_F_DUMP, body, what="list routes")
    return [found for reply in replies if (found := _found(reply)) is not None]


def add(netlink: Netlink, route: Route) -> None:
    """Make a route of ours; replaces the one to the same range."""
    network = ip_network(route.destination)
    destination, gateway = network.network_address.packed, ip_address(route.gateway).packed
    fixed = (0, 0, rtnetlink.RT_TABLE_MAIN, rtnetlink.ROUTE_PROTOCOL, rtnetlink.RT_SCOPE_UNIVERSE, RTN_UNICAST)
    header = _HEADER.pack(family_of(destination), network.prefixlen, *fixed, RTNH_F_ONLINK if route.onlink else 0)
    body = header + attribute(rtnetlink.RTA_DST, destination)
    if len(gateway) == len(destination):
        body += attribute(rtnetlink.RTA_GATEWAY, gateway)
    else:
        body += attribute(RTA_VIA, struct.pack("=H", family_of(gateway)) + gateway)
    if route.device:
        body += attribute(rtnetlink.RTA_OIF, struct.pack("=I", route.device))
    if route.source:
        body += attribute(RTA_PREFSRC, ip_address(route.source).packed)
    flags = rtnetlink.NLM_F_ACK | rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE
    netlink.request(rtnetlink.RTM_NEWROUTE, flags, body, what=f"set route {route.destination} via {route.gateway}")


def segment_of(netlink: Netlink, address: str) -> int | None:
    """The device that leads to an address without a gateway in between; None when there is none, or it is our own."""
    packed = ip_address(address).packed
    body = _HEADER.pack(family_of(packed), 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    body += attribute(rtnetlink.RTA_DST, packed)
    try:
        replies = netlink.request(rtnetlink.RTM_GETROUTE, rtnetlink.NLM_F_ACK, body, what=f"find {address}")
    except OSError as error:
        if error.errno in _NO_WAY:
            return None
        raise
    _, _, _, _, _, _, _, kind, _ = _HEADER.unpack_from(replies[0])
    attributes = dict(read_attributes(replies[0][_HEADER.size :]))
    if kind != RTN_UNICAST or rtnetlink.RTA_GATEWAY in attributes:
        return None
    return _index(attributes)


def _found(reply: bytes) -> Found | None:
    family, length, _, _, table, protocol, _, kind, flags = _HEADER.unpack_from(reply)
    if table != rtnetlink.RT_TABLE_MAIN or kind != RTN_UNICAST or family not in rtnetlink.FAMILIES:
        return None
    attributes = dict(read_attributes(reply[_HEADER.size :]))
    route = Route(
        destination=f"{_address(attributes.get(rtnetlink.RTA_DST, _ANYWHERE[family]))}/{length}",
        gateway=_address(attributes.get(rtnetlink.RTA_GATEWAY) or attributes.get(RTA_VIA, b"")[2:]),
        device=_index(attributes),
        onlink=bool(flags & RTNH_F_ONLINK),
        source=_address(attributes.get(RTA_PREFSRC)),
    )
    return Found(route=route, is_ours=protocol == rtnetlink.ROUTE_PROTOCOL and bool(route.gateway))


def _index(attributes: dict[int, bytes]) -> int:
    """Of the device; 0 for a route over several."""
    return int.from_bytes(attributes.get(rtnetlink.RTA_OIF, b""), sys.byteorder)


def _address(packed: bytes | None) -> str:
    return str(ip_address(packed)) if packed else ""

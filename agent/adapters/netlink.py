"""The few requests of rtnetlink(7) that a node's network needs.

Written out rather than taken from pyroute2: that costs 11 MiB and 0.2 s at every start, and reaches into another
network namespace by a fork, which a process with gRPC's threads in it must not do. Here a socket is opened inside
the namespace by a moment's setns(2) of the calling thread, and stays there.

    message = nlmsghdr (length, type, flags, sequence, port) + a fixed header + attributes (netlink_format.py)

`routes.py` and `vxlan.py` hold what the way to other nodes needs.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Self

from agent.adapters.netlink_format import attribute as _attribute
from agent.adapters.netlink_format import attributes as _attributes
from agent.adapters.netlink_format import family_of
from runtime import syscalls

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH = 28
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 18, 28
IFLA_AF_SPEC, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 26, 8, 1
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD = 0x02
FAMILIES = (socket.AF_INET, socket.AF_INET6)
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC = 1, 4, 5, 7
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80
IFF_UP = 1
NLA_F_NESTED = 0x8000
RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST, RTN_UNREACHABLE = 254, 0, 253, 1, 7

ROUTE_PROTOCOL = 111
"""Marks routes as ours; numbers above 99 are for everybody's own use (rtnetlink(7), rtm_protocol)."""

DEVICE_ROUTE_PROTOCOL = 112
"""Marks those of our routes that lead to this node's own devices; they are never ways to other nodes."""

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_RECEIVE_BYTES = 1 << 17
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkInfo:
    """A network device."""

    index: int
    name: str
    mtu: int


class Netlink:
    """A socket to the kernel, in the caller's network namespace or in the one at a path. Every call blocks, for less
    than a millisecond as a rule, and raises OSError.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self._socket = _socket_in(namespace) if namespace is not None else _socket()
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes, *, what: str) -> list[bytes]:
        """Send a message, and return the bodies of the answer; `what` is said of it when it is refused."""
        return self._request(kind, flags, body, what=what)

    def links(self) -> list[LinkInfo]:
        """Every device."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        found = []
        for reply in self._request(RTM_GETLINK, NLM_F_DUMP, body, what="list links"):
            _, _, index, _, _ = _LINK.unpack_from(reply)
            attributes = dict(_attributes(reply[_LINK.size :]))
            found.append(
                LinkInfo(
                    index=index,
                    name=_text(attributes[IFLA_IFNAME]),
                    mtu=struct.unpack("=I", attributes[IFLA_MTU])[0],
                )
            )
        return found

    def link(self, name: str) -> LinkInfo | None:
        """The device of that name."""
        return next((link for link in self.links() if link.name == name), None)

    def addresses(self) -> dict[str, int]:
        """Addresses of both families, and the index of the device that has each."""
        return dict(self.address_pairs())

    def address_pairs(self) -> list[tuple[str, int]]:
        """The same; several devices may have the same link-local address."""
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        found = []
        for reply in self._request(RTM_GETADDR, NLM_F_DUMP, body, what="list addresses"):
            attributes = dict(_attributes(reply[_ADDRESS.size :]))
            local = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)  # IPv6 has no other
            if local is not None:
                found.append((str(ip_address(local)), _ADDRESS.unpack_from(reply)[4]))
        return found

    def add_veth(
        self, name: str, *, hardware_address: bytes, mtu: int, peer: str, peer_namespace_fd: int, peer_address: bytes
    ) -> None:
        """Make a pair of devices: one here and down, the other in a namespace and down as well."""
        size = _attribute(IFLA_MTU, struct.pack("=I", mtu))
        there = (
            _LINK.pack(0, 0, 0, 0, 0)
            + _attribute(IFLA_IFNAME, peer.encode() + b"\0")
            + _attribute(IFLA_ADDRESS, peer_address)
            + size
            + _attribute(IFLA_NET_NS_FD, struct.pack("=I", peer_namespace_fd))
        )
        pair = _attribute(IFLA_INFO_KIND, b"veth") + _attribute(
            IFLA_INFO_DATA | NLA_F_NESTED, _attribute(VETH_INFO_PEER, there)
        )
        attributes = (
            _attribute(IFLA_IFNAME, name.encode() + b"\0")
            + _attribute(IFLA_ADDRESS, hardware_address)
            + size
            + _attribute(IFLA_LINKINFO | NLA_F_NESTED, pair)
        )
        self._make(RTM_NEWLINK, _LINK.pack(0, 0, 0, 0, 0) + attributes, what=f"make veth {name}")

    def set_up(self, index: int) -> None:
        """Bring a device up."""
        self._request(RTM_NEWLINK, NLM_F_ACK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP), what="bring a link up")

    def set_mtu(self, index: int, mtu: int) -> None:
        """Change the largest packet of a device."""
        body = _LINK.pack(0, 0, index, 0, 0) + _attribute(IFLA_MTU, struct.pack("=I", mtu))
        self._request(RTM_NEWLINK, NLM_F_ACK, body, what=f"set an MTU of {mtu}")

    def delete_link(self, name: str) -> None:
        """Remove a device; its peer goes with it. Nothing happens when there is none."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0")
        try:
            self._request(RTM_DELLINK, NLM_F_ACK, body, what=f"delete link {name}")
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def add_address(self, index: int, address: str, prefix_length: int) -> None:
        """Give a device an address, at once and without asking who else has it; it may have it already."""
        packed = ip_address(address).packed
        body = (
            _ADDRESS.pack(family_of(packed), prefix_length, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
            + _attribute(IFA_LOCAL, packed)
            + _attribute(IFA_ADDRESS, packed)
        )
        if len(packed) == 4:
            broadcast = IPv4Network((address, prefix_length), strict=False).broadcast_address.packed
            body += _attribute(IFA_BROADCAST, broadcast)
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._request(RTM_NEWADDR, flags, body, what=f"add address {address}/{prefix_length}")

    def set_route(self, destination: str, gateway: str) -> None:
        """Reach a range through a gateway; replaces the route that is there."""
        body = _route(destination) + _attribute(RTA_GATEWAY, ip_address(gateway).packed)
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._request(RTM_NEWROUTE, flags, body, what=f"set route {destination} via {gateway}")

    def delete_route(self, destination: str) -> None:
        """Remove our route to a range. Nothing happens when there is none."""
        try:
            self._request(RTM_DELROUTE, NLM_F_ACK, _route(destination), what=f"delete route {destination}")
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    # What is routed to devices of this node

    def add_dead_end(self, name: str, *, hardware_address: bytes) -> None:
        """Make a device that leads nowhere and is up: a bridge without ports. Not all kernels have the kind `dummy`."""
        attributes = (
            _attribute(IFLA_IFNAME, name.encode() + b"\0")
            + _attribute(IFLA_ADDRESS, hardware_address)
            + _attribute(IFLA_LINKINFO | NLA_F_NESTED, _attribute(IFLA_INFO_KIND, b"bridge"))
        )
        self._make(RTM_NEWLINK, _LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + attributes, what=f"make device {name}")

    def delete_address(self, index: int, address: str, prefix_length: int) -> None:
        """Take an address from a device."""
        packed = ip_address(address).packed
        body = _ADDRESS.pack(family_of(packed), prefix_length, 0, RT_SCOPE_UNIVERSE, index)
        body += _attribute(IFA_LOCAL, packed)
        self._request(RTM_DELADDR, NLM_F_ACK, body, what=f"delete address {address}/{prefix_length}")

    def set_device_route(self, destination: str, index: int, *, source: str = "") -> None:
        """Reach a range through a device; what this node itself sends there has the address `source`."""
        body = _route(destination, protocol=DEVICE_ROUTE_PROTOCOL, scope=RT_SCOPE_LINK)
        body += _attribute(RTA_OIF, struct.pack("=I", index))
        if source:
            body += _attribute(RTA_PREFSRC, ip_address(source).packed)
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._request(RTM_NEWROUTE, flags, body, what=f"set route {destination} to a device")

    def set_unreachable(self, destination: str) -> None:
        """Answer for a range that nobody is there, except where a longer route leads to somebody."""
        body = _route(destination, protocol=DEVICE_ROUTE_PROTOCOL, kind=RTN_UNREACHABLE)
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._request(RTM_NEWROUTE, flags, body, what=f"set route {destination} to nobody")

    def device_routes(self) -> list[tuple[str, int]]:
        """Destination and device of every route that the two calls above have set; 0: unreachable."""
        body = _ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
        found = []
        for reply in self._request(RTM_GETROUTE, NLM_F_DUMP, body, what="list routes"):
            family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(reply)
            if protocol != DEVICE_ROUTE_PROTOCOL or table != RT_TABLE_MAIN or family not in FAMILIES:
                continue
            attributes = dict(_attributes(reply[_ROUTE.size :]))
            if RTA_DST in attributes:
                index = struct.unpack("=I", attributes[RTA_OIF])[0] if kind == RTN_UNICAST else 0
                found.append((f"{ip_address(attributes[RTA_DST])}/{length}", index))
        return found

    def delete_device_route(self, destination: str, index: int) -> None:
        """Remove a route that `device_routes` has told of; it may be gone already."""
        body = _route(destination, protocol=DEVICE_ROUTE_PROTOCOL, scope=0, kind=0)
        if index:
            body = _route(destination, protocol=DEVICE_ROUTE_PROTOCOL, scope=RT_SCOPE_LINK)
            body += _attribute(RTA_OIF, struct.pack("=I", index))
        try:
            self._request(RTM_DELROUTE, NLM_F_ACK, body, what=f"delete route {destination}")
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def set_neighbour(self, index: int, address: str, hardware_address: bytes) -> None:
        """Who has an address on a device, once and for all: nobody is asked, and nobody can claim it."""
        packed = ip_address(address).packed
        body = _NEIGHBOUR.pack(family_of(packed), index, NUD_PERMANENT, 0, 0)
        body += _attribute(NDA_DST, packed) + _attribute(NDA_LLADDR, hardware_address)
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._request(RTM_NEWNEIGH, flags, body, what=f"set neighbour {address}")

    def set_no_own_addresses(self, index: int) -> None:
        """The kernel gives a device no IPv6 address by itself. Comes before the device is up."""
        modes = _attribute(socket.AF_INET6, _attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE])))
        body = _LINK.pack(0, 0, index, 0, 0) + _attribute(IFLA_AF_SPEC, modes)
        self._request(RTM_NEWLINK, NLM_F_ACK, body, what="keep a link without IPv6 addresses of its own")

    def _make(self, kind: int, body: bytes, *, what: str) -> None:
        self._request(kind, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body, what=what)

    def _request(self, kind: int, flags: int, body: bytes, *, what: str) -> list[bytes]:
        """The bodies of the answer, without their netlink headers."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)
        found: list[bytes] = []
        while True:
            for answer, sequence, content in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue  # the rest of an answer that was given up
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    if code:
                        raise OSError(code, f"{what}: {os.strerror(code)}")
                    return found
                found.append(content)


def _socket() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    opened.bind((0, 0))
    return opened


def _socket_in(namespace: str) -> socket.socket:
    """A socket belongs to the namespace that it was made in."""
    with entered(namespace):
        return _socket()


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """This thread is in another network namespace. Nothing else may run in it meanwhile: do not wait inside."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(there, syscalls.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


def _route(
    destination: str, *, protocol: int = ROUTE_PROTOCOL, scope: int = RT_SCOPE_UNIVERSE, kind: int = RTN_UNICAST
) -> bytes:
    network = ip_network(destination)
    fixed = (0, 0, RT_TABLE_MAIN, protocol, scope, kind, 0)
    packed = network.network_address.packed
    return _ROUTE.pack(family_of(packed), network.prefixlen, *fixed) + _attribute(RTA_DST, packed)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + size]
        offset += size + -size % 4


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


# What the other families of netlink are written in, too
NETLINK_NETFILTER = 12
HEADER = _HEADER
attribute, attributes, messages = _attribute, _attributes, _messages

"""The VXLAN device, its neighbours and its forwarding entries (rtnetlink(7), `ip link`, `ip neigh`, `bridge fdb`).

One rule: a device does only what is written into it. It learns nothing, and has no entry for what it does not know.
"""

import errno
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from agent.adapters import netlink as rtnetlink
from agent.adapters.netlink import Netlink
from agent.adapters.netlink_format import attribute, family_of
from agent.adapters.netlink_format import attributes as read_attributes

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
IFLA_VXLAN_ID, IFLA_VXLAN_GROUP, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 2, 3, 4, 7
IFLA_VXLAN_GROUP6, IFLA_VXLAN_LOCAL6 = 16, 17
IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA, IFLA_VXLAN_DF = 15, 25, 29
VXLAN_DF_SET = 1
NDA_DST, NDA_LLADDR = 1, 2
NTF_SELF = 2
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NDA_PORT, NDA_VNI, NDA_IFINDEX = 6, 7, 8

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NAMING = {NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX}
_REPLACE = rtnetlink.NLM_F_ACK | rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_REPLACE


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a device is made with, and keeps for its life."""

    vni: int
    port: int
    local: str
    hardware_address: bytes
    is_closed: bool = True
    """It learns nothing, floods to no group, binds to no device, and its outer packets are never fragmented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A VXLAN device that is there."""

    index: int
    mtu: int
    is_up: bool
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a table: an address and its hardware address, or a hardware address and its node.

    `is_plain`: it has nothing beside the two, and stays until it is deleted. `attributes` name it to the kernel.
    """

    key: bytes
    value: bytes
    is_plain: bool
    attributes: bytes


def find(netlink: Netlink, name: str) -> Device | None:
    """The device of that name; one of another kind is told as having no settings of ours. None: there is none."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(rtnetlink.IFLA_IFNAME, name.encode() + b"\0")
    try:
        replies = netlink.request(rtnetlink.RTM_GETLINK, rtnetlink.NLM_F_ACK, body, what=f"find link {name}")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    _, _, index, flags, _ = _LINK.unpack_from(replies[0])
    attributes = dict(read_attributes(replies[0][_LINK.size :]))
    return Device(
        index=index,
        mtu=struct.unpack("=I", attributes[rtnetlink.IFLA_MTU])[0],
        is_up=bool(flags & rtnetlink.IFF_UP),
        settings=_settings(attributes),
    )


def add(netlink: Netlink, name: str, settings: Settings, *, mtu: int) -> None:
    """Make a device that is up."""
    data = (
        attribute(IFLA_VXLAN_ID, struct.pack("=I", settings.vni))
        + _local(settings.local)
        + attribute(IFLA_VXLAN_PORT, struct.pack(">H", settings.port))
        + attribute(IFLA_VXLAN_LEARNING, b"\0")
        + attribute(IFLA_VXLAN_DF, bytes([VXLAN_DF_SET]))
    )
    info = attribute(rtnetlink.IFLA_INFO_KIND, b"vxlan")
    info += attribute(rtnetlink.IFLA_INFO_DATA | rtnetlink.NLA_F_NESTED, data)
    body = (
        _LINK.pack(0, 0, 0, rtnetlink.IFF_UP, rtnetlink.IFF_UP)
        + attribute(rtnetlink.IFLA_IFNAME, name.encode() + b"\0")
        + attribute(rtnetlink.IFLA_ADDRESS, settings.hardware_address)
        + attribute(rtnetlink.IFLA_MTU, struct.pack("=I", mtu))
        + attribute(rtnetlink.IFLA_LINKINFO | rtnetlink.NLA_F_NESTED, info)
    )
    flags = rtnetlink.NLM_F_ACK | rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
    netlink.request(rtnetlink.RTM_NEWLINK, flags, body, what=f"make VXLAN device {name}")


def neighbours(netlink: Netlink, device: int) -> list[Entry]:
    """Address → hardware address, of one device."""
    return [_entry(reply, NDA_DST, NDA_LLADDR) for reply in _dump(netlink, socket.AF_UNSPEC, device)]


def forwarding(netlink: Netlink, device: int) -> list[Entry]:
    """Hardware address → the node that has it, of one device."""
    return [_entry(reply, NDA_LLADDR, NDA_DST) for reply in _dump(netlink, socket.AF_BRIDGE, device)]


def set_forwarding(netlink: Netlink, device: int, hardware_address: bytes, node: str) -> None:
    """Write down which node has a hardware address."""
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, device, NUD_PERMANENT, NTF_SELF, 0)
    body += attribute(NDA_LLADDR, hardware_address) + attribute(NDA_DST, ip_address(node).packed)
    netlink.request(RTM_NEWNEIGH, _REPLACE, body, what=f"forward {hardware_address.hex(':')} to {node}")


def delete_neighbour(netlink: Netlink, device: int, entry: Entry) -> None:
    """Forget a neighbour."""
    _delete(netlink, _NEIGHBOUR.pack(family_of(entry.key), device, 0, 0, 0), entry)


def delete_forwarding(netlink: Netlink, device: int, entry: Entry) -> None:
    """Forget a forwarding entry."""
    _delete(netlink, _NEIGHBOUR.pack(socket.AF_BRIDGE, device, NUD_PERMANENT, NTF_SELF, 0), entry)


def _delete(netlink: Netlink, header: bytes, entry: Entry) -> None:
    try:
        what = f"delete the entry {entry.key.hex(':')}"
        netlink.request(RTM_DELNEIGH, rtnetlink.NLM_F_ACK, header + entry.attributes, what=what)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _dump(netlink: Netlink, family: int, device: int) -> Iterable[bytes]:
    body = _NEIGHBOUR.pack(family, 0, 0, 0, 0)
    for reply in netlink.request(RTM_GETNEIGH, rtnetlink.NLM_F_DUMP, body, what="list neighbours"):
        _, index, state, _, _ = _NEIGHBOUR.unpack_from(reply)
        is_multicast = family != socket.AF_BRIDGE and state & NUD_NOARP  # the kernel's own
        if index == device and not is_multicast:
            yield reply


def _entry(reply: bytes, key: int, value: int) -> Entry:
    """Beside the attributes that name an entry, the kernel tells some that it does not take back."""
    _, _, state, _, _ = _NEIGHBOUR.unpack_from(reply)
    every = {kind: data for kind, data in read_attributes(reply[_NEIGHBOUR.size :]) if kind in _NAMING}
    return Entry(
        key=every.get(key, b""),
        value=every.get(value, b""),
        is_plain=every.keys() == {key, value} and bool(state & NUD_PERMANENT),
        attributes=b"".join(attribute(kind, data) for kind, data in every.items()),
    )


def _local(address: str) -> bytes:
    packed = ip_address(address).packed
    return attribute(IFLA_VXLAN_LOCAL if len(packed) == 4 else IFLA_VXLAN_LOCAL6, packed)


def _settings(attributes: dict[int, bytes]) -> Settings:
    info = dict(read_attributes(attributes.get(rtnetlink.IFLA_LINKINFO, b"")))
    data = dict(read_attributes(info.get(rtnetlink.IFLA_INFO_DATA, b"")))
    is_vxlan = info.get(rtnetlink.IFLA_INFO_KIND, b"").rstrip(b"\0") == b"vxlan"
    local = data.get(IFLA_VXLAN_LOCAL6) or data.get(IFLA_VXLAN_LOCAL) if is_vxlan else None
    open_ways = {IFLA_VXLAN_GROUP, IFLA_VXLAN_GROUP6, IFLA_VXLAN_LINK} & data.keys()
    flags = (data.get(kind, b"") for kind in (IFLA_VXLAN_LEARNING, IFLA_VXLAN_COLLECT_METADATA))
    return Settings(
        vni=int.from_bytes(data.get(IFLA_VXLAN_ID, b""), sys.byteorder),
        port=int.from_bytes(data.get(IFLA_VXLAN_PORT, b""), "big"),
        local=str(ip_address(local)) if local else "",
        hardware_address=attributes.get(rtnetlink.IFLA_ADDRESS, b""),
        is_closed=is_vxlan
        and not open_ways
        and not any(map(any, flags))
        and data.get(IFLA_VXLAN_DF) == bytes([VXLAN_DF_SET]),
    )

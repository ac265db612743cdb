"""Hears from the kernel when somebody has changed the way to other nodes: rtnetlink's groups of listeners.

One rule: what it hears is only a reason to look. The plan is compared with what is there, so that a notice of our own
change, or one too many, does no harm; and what concerns neither our device nor a way to a node is not heard at all,
since tasks come and go all the time.
"""

import asyncio
import errno
import socket
import struct

from agent.adapters import netlink as rtnetlink
from agent.adapters import vxlan
from agent.adapters.netlink import DEVICE_ROUTE_PROTOCOL
from agent.adapters.netlink_format import attributes
from agent.core.overlay import DEVICE, LINK_LOCAL, OUR_DEVICES

RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_ROUTE = 0x1, 0x4, 0x40
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400
RTPROT_KERNEL = 2

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, protocol, scope, type, flags
_RECEIVE_BYTES = 1 << 17


class OverlayWatch:
    """Listens from when it is made. Close it."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._device = 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        groups = RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
        self._socket.bind((0, groups))

    def close(self) -> None:
        self._socket.close()

    async def changed(self) -> None:
        """Returns once something may be different."""
        while True:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, _RECEIVE_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return  # more has happened than was read: whatever it was, look
            if self._concerns(data):
                return

    def look_at(self, device: int) -> None:
        """The index of our device, as it is now."""
        self._device = device

    def _concerns(self, data: bytes) -> bool:
        """Whether any of the messages is about a way to another node."""
        offset, found = 0, False
        while offset + _HEADER.size <= len(data):
            size, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            if size < _HEADER.size:
                break
            found = self._is_about_us(kind, data[offset + _HEADER.size : offset + size]) or found
            offset += size + -size % 4
        return found

    def _is_about_us(self, kind: int, body: bytes) -> bool:
        match kind:
            case rtnetlink.RTM_NEWLINK | rtnetlink.RTM_DELLINK:
                name = dict(attributes(body[_LINK.size :])).get(rtnetlink.IFLA_IFNAME, b"").rstrip(b"\0").decode()
                return name == DEVICE or not name.startswith(OUR_DEVICES)
            case vxlan.RTM_NEWNEIGH | vxlan.RTM_DELNEIGH:
                _, index, _, _, _ = _NEIGHBOUR.unpack_from(body)
                return bool(index == self._device)
            case rtnetlink.RTM_NEWROUTE | rtnetlink.RTM_DELROUTE:
                family, _, _, _, table, protocol, _, _, _ = _ROUTE.unpack_from(body)
                if family == socket.AF_INET6 and protocol == RTPROT_KERNEL:  # each device that comes up has some
                    return False
                return bool(table == rtnetlink.RT_TABLE_MAIN and protocol != DEVICE_ROUTE_PROTOCOL)
            case rtnetlink.RTM_DELADDR:
                address = dict(attributes(body[_ADDRESS.size :])).get(rtnetlink.IFA_ADDRESS, b"")
                return address.startswith(LINK_LOCAL)
            case _:
                return False

"""Move network interfaces of the host into a container (`linux.netDevices`), by a few messages of rtnetlink(7).

The creator does it, which is in the host's namespace, once the container's is there. The kernel keeps an interface's
hardware address and MTU over the move and forgets its addresses, so those that somebody has given it are given again.
A physical interface comes back when the container's namespace ends; a virtual one ends with it.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Final, Self

from runtime import errors, syscalls
from runtime.values import frozen

_HEADER: Final = struct.Struct("IHHII")  # struct nlmsghdr
_LINK: Final = struct.Struct("BxHiII")  # struct ifinfomsg
_ADDRESS: Final = struct.Struct("BBBBI")  # struct ifaddrmsg
_ATTRIBUTE: Final = struct.Struct("HH")  # struct nlattr

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_GETLINK, _RTM_SETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 19, 20, 22
_REQUEST, _ACKNOWLEDGE, _DUMP, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_KEPT: Final = frozenset({1, 2, 4})  # IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST
_IFF_UP, _IFA_F_PERMANENT, _SCOPE_GLOBAL = 1, 0x80, 0
_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 1 << 16


def move(devices: Mapping[str, str], pid: int) -> None:
    """Give the interfaces, by the host's names, to the container of this process, by its names, and bring them up."""
    with errors.step("linux.netDevices"):
        inside = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        host, container = _Kernel.here(), _Kernel.of(inside)
    try:
        for outside_name, inside_name in devices.items():
            with errors.step(f"linux.netDevices.{outside_name}"):
                _move(host, container, inside, outside_name, inside_name)
    finally:
        for kernel in (host, container):
            kernel.socket.close()
        os.close(inside)


def _move(host: "_Kernel", container: "_Kernel", namespace: int, outside_name: str, inside_name: str) -> None:
    index = socket.if_nametoindex(outside_name)
    addresses = [address for address in host.addresses() if address.index == index]
    name = _attribute(_IFLA_IFNAME, inside_name.encode() + b"\0")
    where = _attribute(_IFLA_NET_NS_FD, struct.pack("I", namespace))
    host.ask(_RTM_SETLINK, 0, _LINK.pack(0, 0, index, 0, 0) + name + where)
    # Its number may be another one there, but the kernel finds it by its name as well.
    container.ask(_RTM_NEWLINK, 0, _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + name)
    inside_index = container.index(inside_name)
    for address in addresses:
        head = _ADDRESS.pack(address.family, address.prefix, _IFA_F_PERMANENT, _SCOPE_GLOBAL, inside_index)
        container.ask(_RTM_NEWADDR, _CREATE | _EXCLUSIVE, head + address.attributes)


@frozen
class _Address:
    """An address that somebody has given to an interface."""

    index: int
    family: int
    prefix: int
    attributes: bytes


@frozen
class _Kernel:
    """A socket to one network namespace's part of the kernel."""

    socket: socket.socket

    @classmethod
    def here(cls) -> Self:
        """Of the caller's namespace."""
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        opened.settimeout(_TIMEOUT_S)
        return cls(socket=opened)

    @classmethod
    def of(cls, namespace: int) -> Self:
        """Of another namespace, in which the caller is for a moment only: a socket stays where it was made."""
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(namespace, syscalls.CLONE_NEWNET)
            try:
                return cls.here()
            finally:
                syscalls.setns(own, syscalls.CLONE_NEWNET)
        finally:
            os.close(own)

    def ask(self, kind: int, flags: int, body: bytes) -> None:
        """A change; raises what the kernel has against it."""
        for _ in self._answers(kind, _ACKNOWLEDGE | flags, body):
            continue

    def addresses(self) -> Iterator[_Address]:
        """Those of all interfaces that are neither the kernel's own nor for a time only."""
        for body in self._answers(_RTM_GETADDR, _DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
            if flags & _IFA_F_PERMANENT and scope == _SCOPE_GLOBAL:
                kept = b"".join(_kept(body[_ADDRESS.size :]))
                yield _Address(index=index, family=family, prefix=prefix, attributes=kept)

    def index(self, name: str) -> int:
        """The number of an interface."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        [found] = self._answers(_RTM_GETLINK, _ACKNOWLEDGE, body)
        return int(_LINK.unpack_from(found)[2])

    def _answers(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self.socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
        while True:
            packet = self.socket.recv(_MAX_BYTES)
            while packet:
                length, answer, _, _, _ = _HEADER.unpack_from(packet)
                found, packet = packet[_HEADER.size : length], packet[_aligned(length) :]
                if answer == _NLMSG_ERROR:
                    _raise(int.from_bytes(found[:4], "little", signed=True))
                if answer in {_NLMSG_ERROR, _NLMSG_DONE}:
                    return
                yield found


def _raise(number: int) -> None:
    if number:
        raise OSError(-number, os.strerror(-number))


def _kept(attributes: bytes) -> Iterator[bytes]:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind in _KEPT:
            yield _attribute(kind, attributes[_ATTRIBUTE.size : length])
        attributes = attributes[_aligned(max(length, _ATTRIBUTE.size)) :]


def _attribute(kind: int, value: bytes) -> bytes:
    whole = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return whole.ljust(_aligned(len(whole)), b"\0")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
